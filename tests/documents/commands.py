"""`memoryrouter` for shell blocks, without half a second of imports each time.

A process that has loaded the program forks for every command; a small client in its place on the PATH hands it
arguments, environment, working directory and the three standard files. `serve` is always the program itself.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LOADED = ("router.admin", "router.service", "actors.store.doctor", "actors.store.backup", "rich.table", "httpx")
BYTES_MAX = 1 << 20
CLIENT = """\
#!{python} -ISE
import json, os, socket, sys
if "serve" in sys.argv[1:2]:
    os.execv({program!r}, sys.argv)
with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
    connection.connect({address!r})
    asked = [sys.argv[1:], dict(os.environ), os.getcwd()]
    socket.send_fds(connection, [json.dumps(asked).encode()], [0, 1, 2])
    sys.exit(int(connection.recv(16) or 70))
"""


@contextlib.contextmanager
def open_commands(folder: Path) -> Iterator[Path]:
    """A folder for the PATH, with the client as `memoryrouter` in it."""
    address = folder / "socket"
    client = folder / "memoryrouter"
    program = Path(sys.prefix) / "bin" / "memoryrouter"
    client.write_text(
        CLIENT.format(python=sys.executable, program=str(program), address=str(address)), encoding="utf-8"
    )
    client.chmod(0o755)
    command = [sys.executable, "-m", "tests.documents.commands", str(address)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2], env=environment) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        try:
            yield folder
        finally:
            server.kill()


def _serve(address: str) -> None:
    for name in LOADED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            connection, _ = listener.accept()
            message, files, _, _ = socket.recv_fds(connection, BYTES_MAX, 3)
            if os.fork() == 0:
                os._exit(_run(connection, message, files))
            connection.close()
            for file in files:
                os.close(file)


def _run(connection: socket.socket, message: bytes, files: list[int]) -> int:
    """In the child: the command, and its exit code to who asked."""
    from router.cli import run_program

    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    arguments, environment, directory = json.loads(message)
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    code = 70
    try:
        code = int(run_program(arguments))
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    finally:
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
        connection.send(str(code).encode())
    return code


if __name__ == "__main__":
    _serve(sys.argv[1])
