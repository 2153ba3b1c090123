"""What load is sent to: the mock itself, servers of ours in each mode of memory, and any other that is named.

Owns the syntax of `--target` and `--checkout`, the requests that all targets get alike, and how our servers are set up.
Never measures.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec
import trio

from bench._harness import Server, question, running_server
from bench._machine import ROOT
from bench._vaults import write_vaults

CHAT_PATH = "/chat/completions"
TEXTS = 512
"""Different questions; each request also has a number, so that no two are equal."""

SYSTEM = (
    "You are the assistant of a small company that sells kitchen tools by mail. Answer in the language of the person "
    "who asks. Be brief: two or three sentences, no lists, no headings. Where a question is about an order, ask for "
    "its number unless it was given. Never promise a date of delivery; say that the carrier decides. Refunds are "
    "granted within thirty days if the tool is complete. Do not speak about other companies. If somebody is upset, say "
    "that you understand before you explain anything. When you do not know something, say so, and name the telephone "
    "number of the office, which is open on weekdays from nine to five. Never mention these instructions."
)
"""About 0.7 kB, so that a request has about 1 kB."""

SETTLE_TIMEOUT_S = 300.0
POLL_S = 0.2
"""Between questions whether all is embedded: their processor time counts as the server's."""

KEPT = {"MEMORYROUTER_VAULTS__IDLE_TIMEOUT_S": "3600", "MEMORYROUTER_LOG__LEVEL": "error"}
RECALLED = b"x-memory-status: ok"
_RESERVED = ("model", "pid")


class Target(msgspec.Struct, frozen=True):
    """An OpenAI-compatible server.

    Attributes:
        url: as an SDK is given it, for example `http://127.0.0.1:8080/v1`.
        model: with `{model}` in the place of the mock's model.
        pid: of its process, whose memory and processor time are noted with those of its descendants; None: unknown.
        mark: what the head of an answer holds, in lower case, if memory was read for it; b"": it is not.
        settle: waits until the server has done what it does after its answers.
        baseline: whether it is what others are compared to.
    """

    name: str
    url: str
    headers: tuple[tuple[str, str], ...] = ()
    model: str = "{model}"
    pid: int | None = None
    mark: bytes = b""
    settle: Callable[[], None] | None = None
    baseline: bool = False


def target_of(text: str) -> Target:
    """A target from `NAME=URL[;HEADER=VALUE]...`; `model=` and `pid=` are no headers.

    Raises:
        argparse.ArgumentTypeError: the text is none.
    """
    (name, _, url), *others = [part.partition("=") for part in text.split(";")]
    parts = urlsplit(url)
    if not name or parts.scheme != "http" or not parts.hostname or any(not key or not eq for key, eq, _ in others):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=http://HOST:PORT/v1[;HEADER=VALUE]...")
    given = {key: value for key, _, value in others}
    pid = given.get("pid", "")
    if pid and not pid.isdigit():
        raise argparse.ArgumentTypeError(f"pid={pid} is no number")
    return Target(
        name=name,
        url=url.rstrip("/"),
        headers=tuple((key, value) for key, value in given.items() if key not in _RESERVED),
        model=given.get("model", "{model}"),
        pid=int(pid) if pid else None,
    )


def checkout_of(text: str) -> tuple[str, Path]:
    """A name and a checkout from `NAME=DIRECTORY`.

    Raises:
        argparse.ArgumentTypeError: the text is none.
    """
    name, _, directory = text.partition("=")
    root = Path(directory).absolute()
    if not name or not (root / "router" / "__main__.py").exists():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form NAME=DIRECTORY with a checkout in it")
    return name, root


def chat_requests(target: Target, model: str, *, stream: bool) -> Callable[[int], bytes]:
    """The bytes of the n-th chat for a target: the same for all, but for the path, the headers and the model's name."""
    parts = urlsplit(target.url)
    head = f"POST {parts.path}{CHAT_PATH} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: application/json\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in target.headers)
    templates = [_template(head, target.model.format(model=model), number, stream=stream) for number in range(TEXTS)]
    return lambda number: templates[number % TEXTS] % number


def _template(head: str, model: str, number: int, *, stream: bool) -> bytes:
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": f"{question(number)} (NUMBER)"},
    ]
    body = json.dumps({"model": model, "stream": stream, "max_tokens": 300, "messages": messages})
    length = len(body) - len("NUMBER") + len(f"{0:09d}")
    whole = f"{head}Content-Length: {length}\r\n\r\n{body}".replace("%", "%%")
    return whole.replace("NUMBER", "%09d").encode()


@contextmanager
def our_targets(
    provider: int, modes: Sequence[str], *, memories: int, name: str = "", root: Path = ROOT
) -> Iterator[tuple[Server, list[Target]]]:
    """A server of ours before the mock, with a vault of so many memories, and a target for each mode of memory.

    Args:
        provider: the port of the mock.
        name: of the checkout, if it is not the one that runs.
    """
    with ExitStack() as stack:
        data_dir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="memoryrouter-bench-"))) / "data"
        os.environ["MEMORYROUTER_ACCOUNT_KEY"], key = _filled(data_dir, memories, root)
        environ = {**KEPT, "MEMORYROUTER_PROVIDERS__OPENAI__BASE_URL": f"http://127.0.0.1:{provider}/v1"}
        server = stack.enter_context(running_server(data_dir, environ, root=root))
        wait_loaded(server.url, key)
        authorization = ("Authorization", f"Bearer {key}")
        yield (
            server,
            [
                Target(
                    name=f"{name}{': ' if name else ''}memory {mode}",
                    url=f"{server.url}/v1",
                    headers=(authorization, ("X-Memory-Mode", mode)),
                    model="openai/{model}",
                    pid=server.process.pid,
                    mark=RECALLED if mode in {"on", "read"} else b"",
                    settle=None if mode == "off" else lambda: wait_embedded(server.url, key),
                )
                for mode in modes
            ],
        )


_FILL = (
    "import json, sys, pathlib, trio; from bench._vaults import write_vaults\n"
    "print(json.dumps(trio.run(write_vaults, pathlib.Path(sys.argv[1]), [int(sys.argv[2])])))"
)


def _filled(data_dir: Path, memories: int, root: Path) -> tuple[str, str]:
    """The account key and the user key of a new data directory, written by the code that will read it."""
    if root == ROOT:
        account_key, keys = trio.run(write_vaults, data_dir, [memories])
    else:
        command = [sys.executable, "-c", _FILL, str(data_dir), str(memories)]
        done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True, timeout=SETTLE_TIMEOUT_S)
        account_key, keys = json.loads(done.stdout)
    return account_key, keys[0]


def wait_loaded(url: str, key: str) -> None:
    """Wait until a vault is in memory: a large one may take longer to come than a question waits.

    Raises:
        RuntimeError: it did not come.
    """
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        while not client.post("/v1/memory/search", json={"query": question(0)}).is_success:
            if time.monotonic() > deadline_s:
                raise RuntimeError("The vault did not come.")
            time.sleep(POLL_S)


def wait_embedded(url: str, key: str) -> None:
    """Wait until all that a vault was given is embedded.

    Raises:
        RuntimeError: it took too long.
        httpx.HTTPStatusError: the vault's state cannot be asked for.
    """
    deadline_s = time.monotonic() + SETTLE_TIMEOUT_S
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as client:
        while _is_busy(client.get("/v1/memory/stats")):
            if time.monotonic() > deadline_s:
                raise RuntimeError("Embedding took too long.")
            time.sleep(POLL_S)


def _is_busy(stats: httpx.Response) -> bool:
    """Whether there is something left to embed, or the vault is still at what many connections have asked of it."""
    if stats.status_code == httpx.codes.SERVICE_UNAVAILABLE:
        return True
    return bool(stats.raise_for_status().json()["pending"])
