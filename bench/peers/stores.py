"""Stores of memories that can be filled and asked: rivals in a process of their own, and our server over HTTP.

Owns their processes, and how one is told what to do. Times are taken where a user of the store would take them: around
the calls of a package, in its own process; around the requests to our server, in this one. Never decides what is asked.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

import httpx
import msgspec

from bench._harness import Server, free_port, running_server
from bench._load import Load, run_load
from bench._machine import ROOT
from bench.peers.environments import HERE, python_environment
from bench.peers.processes import NotStarted, running, wait_ready
from models.model_files import TOKENIZER_SHA256, installed_model_files, prepared_model, verify_file

Texts = Sequence[tuple[str, str]]
"""(user, text)."""

UPLOAD_LINES = 1_000
EMBED_TIMEOUT_S = 1_800.0
RIVALS = {
    "mem0": ("mem0", "2.2.1"),
    "chroma": ("chroma", "1.5.9"),
    "chroma-server": ("chroma", "1.5.9"),
    "chroma-by-user": ("chroma", "1.5.9"),
    "langchain": ("langchain", "core 1.7.2"),
    "llama-index": ("llama-index", "core 0.14.25"),
}
"""Environment and version, by name."""


class Times(msgspec.Struct, frozen=True):
    """Of some calls: each one's seconds, the seconds of all together, and how many memories each found."""

    latencies_s: list[float]
    seconds: float
    found: list[int] = []


class Store(Protocol):
    """What is compared."""

    def fill(self, texts: Texts, vectors: Path | None = None) -> float:
        """Store texts in the fastest way it has; the seconds until all can be found.

        Args:
            vectors: a file of their vectors, for those that can do without embedding them again.
        """

    def add(self, texts: Texts) -> Times:
        """Store texts one by one; each is durable, as far as the store makes it so, when its call returns."""

    def ask(self, texts: Texts, *, clients: int, limit: int, filtered: bool = True) -> Times:
        """Ask for the memories nearest to each question, `clients` at a time."""

    def pids(self) -> list[int]:
        """Its processes, without their descendants."""


def shared_model(folder: Path) -> Path:
    """A folder with the rewritten graph and the tokenizer of our embedding model, for all that are compared."""
    files = installed_model_files()
    verify_file(files.tokenizer_path, TOKENIZER_SHA256)
    prepared_model(folder, files)
    shutil.copy(files.tokenizer_path, folder / "tokenizer.json")
    return folder


class Rival:
    """A store of others behind `scripts/memory_store.py`."""

    def __init__(self, process: subprocess.Popen[str], others: Sequence[int], batch: int) -> None:
        self._process = process
        self._others = others
        self._batch = batch

    def fill(self, texts: Texts, vectors: Path | None = None) -> float:
        """In batches, embedding included unless the vectors are given."""
        given = {"vectors": str(vectors)} if vectors else {}
        return self._tell(do="fill", texts=texts, batch=self._batch, **given).seconds

    def add(self, texts: Texts) -> Times:
        """One call a text, embedding included."""
        return self._tell(do="add", texts=texts)

    def ask(self, texts: Texts, *, clients: int, limit: int, filtered: bool = True) -> Times:
        """One call a question, from threads."""
        return self._tell(do="ask", texts=texts, clients=clients, limit=limit, filtered=filtered)

    def pids(self) -> list[int]:
        """Its process, and its server where it has one."""
        return [self._process.pid, *self._others]

    def _tell(self, **command: Any) -> Times:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise NotStarted("The store ended; its output.txt says why.")
        return msgspec.json.decode(line, type=Times)


@contextmanager
def open_rival(name: str, work_dir: Path, run_dir: Path, model_dir: Path, threads: int, batch: int) -> Iterator[Rival]:
    """Install a store unless it is there, and start it.

    Args:
        threads: of one run of the embedding model.
        batch: texts of one call where it is filled.
    """
    folder = python_environment(RIVALS[name][0], work_dir)
    run_dir.mkdir(parents=True)
    variables = {"PYTHONPATH": str(ROOT)}
    others: list[int] = []
    if name == "chroma-server":
        with _chroma_server(folder, run_dir) as (port, pid):
            variables["CHROMA_PORT"] = str(port)
            others.append(pid)
            with _script(name.removesuffix("-server"), folder, run_dir, model_dir, variables, threads) as process:
                yield Rival(process, others, batch)
        return
    with _script(name, folder, run_dir, model_dir, variables, threads) as process:
        yield Rival(process, others, batch)


@contextmanager
def _script(
    name: str, folder: Path, run_dir: Path, model_dir: Path, variables: dict[str, str], threads: int
) -> Iterator[subprocess.Popen[str]]:
    script = HERE / "scripts" / "memory_store.py"
    command = [str(folder / "bin" / "python"), str(script), name, str(model_dir), str(threads)]
    with running(command, run_dir, variables, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        if not process.stdout.readline():
            written = (run_dir / "output.txt").read_text(errors="replace")[-1500:]
            raise NotStarted(f"{name} ended: {written}")
        yield process


@contextmanager
def _chroma_server(folder: Path, run_dir: Path) -> Iterator[tuple[int, int]]:
    """Port and process of Chroma's own server."""
    port, server_dir = free_port(), run_dir / "server"
    server_dir.mkdir()
    command = [str(folder / "bin" / "chroma"), "run", "--path", str(server_dir), "--host", "127.0.0.1"]

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    with running([*command, "--port", str(port)], server_dir, {}) as process:
        wait_ready(process, server_dir, listens)
        yield port, process.pid


class Ours:
    """Our server: a key and a vault for each user."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._keys: dict[str, str] = {}

    def fill(self, texts: Texts, vectors: Path | None = None) -> float:
        """Uploads; until all is embedded, whatever vectors are given."""
        of_users = [(user, list(of_user)) for user, of_user in groupby(texts, key=lambda one: one[0])]
        for user, _ in of_users:
            self._key(user)
        began_s = time.perf_counter()
        with httpx.Client(base_url=self._server.url, timeout=300) as client:
            for user, of_user in of_users:
                for start in range(0, len(of_user), UPLOAD_LINES):
                    part = of_user[start : start + UPLOAD_LINES]
                    body = "\n".join(json.dumps({"content": text}) for _, text in part).encode()
                    client.post("/v1/memory/upload", content=body, headers=self._headers(user)).raise_for_status()
            for user, _ in of_users:
                self._wait_embedded(client, user)
        return time.perf_counter() - began_s

    def add(self, texts: Texts) -> Times:
        """One `POST /v1/memory/ingest` a text: on the disk when it is answered, embedded soon after."""
        times = self._load(
            "/v1/memory/ingest",
            texts,
            lambda text: {"messages": [{"role": "user", "content": text}]},
            clients=1,
            expect=202,
        )
        with httpx.Client(base_url=self._server.url, timeout=300) as client:
            for user in {user for user, _ in texts}:
                self._wait_embedded(client, user)
        return times

    def ask(self, texts: Texts, *, clients: int, limit: int, filtered: bool = True) -> Times:
        """`POST /v1/memory/search`; a vault holds nobody else's memories, so that there is nothing to filter."""
        return self._load("/v1/memory/search", texts, lambda text: {"query": text, "limit": limit}, clients=clients)

    def pids(self) -> list[int]:
        """The server."""
        return [self._server.process.pid]

    def _load(
        self, path: str, texts: Texts, body: Callable[[str], dict[str, Any]], *, clients: int, expect: int = 200
    ) -> Times:
        for user, _ in texts:
            self._key(user)
        requests = [self._request(path, user, body(text)) for user, text in texts]
        load = Load(
            self._server.url + path,
            lambda number: requests[number],
            connections=clients,
            requests_max=len(requests),
            seconds=600,
            warm_up_s=0,
            expect=expect,
        )
        began_s = time.perf_counter()
        outcome = run_load(load)
        if outcome.errors:
            raise RuntimeError(f"{path}: {outcome.errors}")
        return Times(outcome.latencies_s, time.perf_counter() - began_s)

    def _request(self, path: str, user: str, body: dict[str, Any]) -> bytes:
        data = json.dumps(body).encode()
        head = f"POST {path} HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nAuthorization: Bearer "
        return f"{head}{self._key(user)}\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data

    def _key(self, user: str) -> str:
        if user not in self._keys:
            answer = httpx.post(f"{self._server.url}/v1/keys", headers=self._server.headers, json={"name": user})
            self._keys[user] = answer.raise_for_status().json()["key"]
        return self._keys[user]

    def _headers(self, user: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key(user)}"}

    def _wait_embedded(self, client: httpx.Client, user: str) -> None:
        deadline_s = time.perf_counter() + EMBED_TIMEOUT_S
        while client.get("/v1/memory/stats", headers=self._headers(user)).raise_for_status().json()["pending"]:
            if time.perf_counter() > deadline_s:
                raise RuntimeError("Embedding took too long.")
            time.sleep(0.02)


class Prepared(Ours):
    """The same server, asked for a context that can be injected: ranked, rendered, cut to its budget."""

    def __init__(self, ours: Ours) -> None:
        super().__init__(ours._server)
        self._keys = ours._keys

    def ask(self, texts: Texts, *, clients: int, limit: int, filtered: bool = True) -> Times:
        """`POST /v1/memory/prepare`, which chooses itself how many memories it gives."""
        return self._load(
            "/v1/memory/prepare",
            texts,
            lambda text: {"messages": [{"role": "user", "content": text}]},
            clients=clients,
        )


@contextmanager
def open_ours(threads: int) -> Iterator[Ours]:
    """Our server on a fresh data directory, everything at its default but the threads of the model."""
    os.environ.pop("MEMORYROUTER_ACCOUNT_KEY", None)
    environ = {"MEMORYROUTER_EMBEDDING__THREADS": str(threads), "MEMORYROUTER_VAULTS__IDLE_TIMEOUT_S": "3600"}
    with running_server(environ=environ) as server:
        yield Ours(server)
