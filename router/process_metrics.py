"""The process as the system sees it: time, memory, files, threads. Names as Prometheus' own client libraries use them.

Owns reading them at each scrape. Where there is no /proc, the numbers that need it are left out.
"""

from __future__ import annotations

import os
import resource
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from router.metrics import Group

PROCESS = Group(
    (),
    ("start_s", "process_start_time_seconds", "gauge", "When the process began, in seconds since the epoch."),
    ("cpu_s", "process_cpu_seconds_total", "counter", "Processor time of all threads, in the system and outside."),
    ("resident_bytes", "process_resident_memory_bytes", "gauge", "Memory that is in RAM."),
    ("virtual_bytes", "process_virtual_memory_bytes", "gauge", "Memory that is mapped."),
    ("open_fds", "process_open_fds", "gauge", "Open file descriptors."),
    ("max_fds", "process_max_fds", "gauge", "File descriptors that the process may open."),
    ("threads", "process_threads", "gauge", "Threads of the process, those of libraries too."),
)

_STARTED_S = time.time()  # where the system does not tell: when this module was loaded
_THREADS_FIELD, _STARTED_FIELD = 17, 19  # of /proc/self/stat, counted behind the name of the program; see proc(5)


def read_process() -> dict[str, Any]:
    """The numbers of `PROCESS`, as they are now."""
    return {
        "start_s": _STARTED_S,
        "cpu_s": time.process_time(),
        "max_fds": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        "threads": threading.active_count(),
        **dict(_from_proc()),
    }


def _from_proc() -> Iterator[tuple[str, float]]:
    with suppress(OSError), open("/proc/self/statm", encoding="ascii") as file:
        mapped, resident, *_ = file.read().split()
        yield "virtual_bytes", int(mapped) * resource.getpagesize()
        yield "resident_bytes", int(resident) * resource.getpagesize()
    with suppress(OSError):
        yield "open_fds", len(os.listdir("/proc/self/fd"))
    with suppress(OSError), open("/proc/self/stat", encoding="utf-8", errors="replace") as file:
        fields = file.read().rpartition(")")[2].split()
        yield "threads", int(fields[_THREADS_FIELD])
        yield "start_s", _booted_s() + int(fields[_STARTED_FIELD]) / os.sysconf("SC_CLK_TCK")


def _booted_s() -> float:
    """When the system was started, in seconds since the epoch."""
    with open("/proc/stat", encoding="ascii") as file:
        (line,) = [line for line in file if line.startswith("btime ")]
    return float(line.split()[1])
