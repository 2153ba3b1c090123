"""Where numbers come from: the machine, the versions, how busy it was; and what a process and its children use.

Owns reading /proc. Measures nothing by itself. Without /proc (not Linux) what cannot be known is left out.
"""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from models.version import VERSION

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "apsw", "cryptography", "h11", "hnswlib", "httpx", "hypercorn", "msgspec", "numpy", "onnxruntime", "quart",
    "quart-trio", "tokenizers", "trio",
)  # fmt: skip
PROC = Path("/proc")


def machine() -> dict[str, Any]:
    """The facts that stand in every result. Loads are those of now: call it before anything is measured."""
    return {
        "cpu": _first_value(PROC / "cpuinfo", "model name") or platform.processor(),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_mb": int((_first_value(PROC / "meminfo", "MemTotal") or "0").split()[0]) // 1_000,
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "memoryrouter": VERSION,
        "git": described(ROOT),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
        "load": [round(value, 2) for value in os.getloadavg()],
        "date": time.strftime("%Y-%m-%d %H:%M", time.gmtime()),
    }


def described(directory: Path) -> str:
    """What git calls the state of a checkout; "" of what is none."""
    if not (directory / ".git").exists():
        return ""
    command = ["git", "-C", str(directory), "describe", "--always", "--dirty", "--tags"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip()


def _first_value(path: Path, name: str) -> str:
    """The value of the first line `name: value` of a file."""
    try:
        lines = path.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def process_tree(pid: int) -> list[int]:
    """A process and all of its descendants that live."""
    found, waiting = [], [pid]
    while waiting:
        one = waiting.pop()
        found.append(one)
        for task in _tasks(one):
            try:
                waiting += map(int, (task / "children").read_text().split())
            except OSError:
                continue
    return found


CpuTimes = dict[tuple[int, int], int]
"""Nanoseconds on a processor, by process and thread."""


def cpu_times(pid: int) -> CpuTimes:
    """What the living threads of a process and of its descendants have used so far."""
    found: CpuTimes = {}
    for one in process_tree(pid):
        for task in _tasks(one):
            try:
                found[one, int(task.name)] = int((task / "schedstat").read_text().split()[0])
            except (OSError, IndexError):
                continue
    return found


def cpu_between_s(before: CpuTimes, after: CpuTimes) -> float:
    """Processor seconds between two moments; of a thread that ended between them, what it used then is not known."""
    return sum(used - before.get(thread, 0) for thread, used in after.items()) / 1e9


def rss_bytes(pid: int) -> int:
    """Resident memory of a process and its descendants; what they share counts for each."""
    pages = 0
    for one in process_tree(pid):
        try:
            pages += int((PROC / str(one) / "statm").read_text().split()[1])
        except (OSError, IndexError):
            continue
    return pages * os.sysconf("SC_PAGE_SIZE")


def _tasks(pid: int) -> list[Path]:
    try:
        return list((PROC / str(pid) / "task").iterdir())
    except OSError:
        return []
