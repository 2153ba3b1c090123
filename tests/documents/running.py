"""Runs the blocks of one document as its reader would: in order, in one folder, against a server of the page's own.

Shell goes to bash, Python to one interpreter that keeps its names, TOML to the loader of settings. Three things are
changed in what is run: the addresses of the server and of providers, and `mk_...`, which stands for the account key.
What a block exports holds for those behind it. A block whose last line serves becomes the page's server; without one,
`memoryrouter serve` is started when first needed.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tomllib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import trio

from models.settings_loading import load_settings
from tests.documents.blocks import SHELL, TEXT, Block
from tests.documents.provider import KindProvider
from tests.patience import PATIENCE_S, PATIENT_ENVIRONMENT
from tests.prepared_model import put_model
from tests.running import ROOT, ServerProcess

WORKER = Path(__file__).with_name("worker.py")
SERVES = re.compile(r"\bserve\b[^|&;]*\Z")
SERVER_ADDRESS = re.compile(r"\b(127\.0\.0\.1|localhost):8080\b")
PROVIDER_ADDRESS = re.compile(r"\b(127\.0\.0\.1|localhost|10\.0\.0\.7):(11434|8000)\b")
ACCOUNT_KEY = re.compile(r"\bmk_\.\.\.")
WAITING = re.compile(r"^memoryrouter_vaults_inbox_messages(?:\{[^}]*\})? (\S+)$", re.M)
PROVIDERS = {"openai": "/v1", "anthropic": "", "google": "", "ollama": "/v1", "vllm": "/v1"}
CHECKOUT = ("models", "actors", "router", "bench", "tests", "docs", "requirements", "Makefile", "pyproject.toml",
            "config.toml", "README.md", "LICENSE")  # fmt: skip


class PageRun:
    """A page under way.

    Attributes:
        folder: its working directory: a checkout whose files are links, so that `make` works in it as well.
        environment: of the next block.
        output: what the last block printed.
    """

    def __init__(self, folder: Path, nursery: trio.Nursery, environment: dict[str, str]) -> None:
        self.folder = folder
        self.output = ""
        self.environment = self._first_environment = environment
        self._account_key = ""
        provider = environment["MEMORYROUTER_PROVIDERS__ANTHROPIC__BASE_URL"]
        self._addresses = tuple(url.removeprefix("http://") for url in (environment["MEMORYROUTER_BASE_URL"], provider))
        self._nursery = nursery
        self._server: ServerProcess | None = None
        self._python: trio.Process | None = None

    async def begin_page(self) -> None:
        """Let the next block be the first of a page of its own: another account key, with a vault of its own."""
        await self._serve()
        headers = {"Authorization": f"Bearer {self._account_key}"}
        async with _open_http(headers) as http:
            body = {"name": "of a page", "kind": "account"}
            made = await http.post(f"http://{self._addresses[0]}/v1/keys", json=body)
        key = made.raise_for_status().json()["key"]
        self.environment = {**self._first_environment, "MEMORYROUTER_ACCOUNT_KEY": key, "MEMORYROUTER_API_KEY": key}

    async def run(self, block: Block) -> None:
        """Run one block by its language and its marks. What was stored before has its vectors then, as for a reader."""
        marks = block.marks
        await self._wait_embedded()
        if "file" in marks:
            self.folder.joinpath(marks["file"]).write_text(self._filled_in(block.text), encoding="utf-8")
        if "output" in marks:
            assert_printed(block, self.output)
        elif block.language in SHELL:
            await self._run_shell(block, self._filled_in(block.text))
        elif block.language == "python":
            await self._serve()
            await self._run_python(block)
        elif block.language == "json":
            await self._read_json(block)
        elif block.language == "toml":
            self._read_toml(block)
        elif block.language == "yaml":
            importlib.import_module("yaml").safe_load(block.text)
        else:
            assert {"file", "another program"} & set(marks) or block.language in TEXT, (
                f"{block.place}: nobody runs {block.language!r}"
            )

    async def stop_server(self) -> None:
        """Ctrl-C, and its end. (A SIGTERM would reach the server twice where make is between.)"""
        if self._server is not None:
            os.killpg(self._server.process.pid, signal.SIGINT)
            await self._server.wait()
            stopped = [entry for entry in self._server.log if entry["event"] == "server_stopped"]
            assert stopped, self._server.log
            self._server = None

    async def kill(self) -> None:
        """End whatever still runs."""
        server = None if self._server is None else self._server.process
        for process in (self._python, server):
            if process is None:
                continue
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
        if self._python is not None:
            assert self._python.stdin is not None
            assert self._python.stdout is not None
            await self._python.stdin.aclose()
            await self._python.stdout.aclose()

    async def _wait_embedded(self) -> None:
        if self._server is None:
            return
        async with _open_http() as http:
            with trio.fail_after(PATIENCE_S):
                while True:
                    waiting = WAITING.search((await http.get(f"{self._server.url}/metrics")).text)
                    assert waiting, "no such metric"
                    if float(waiting[1]) == 0:
                        return

    async def _serve(self, script: str = "memoryrouter serve") -> None:
        if self._server is not None:
            return
        process = await trio.lowlevel.open_process(
            ["bash", "-e", "-c", script],
            cwd=self.folder, env={**self.environment, "MEMORYROUTER_BASE_URL": ""}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip
        self._server = ServerProcess(process)
        self._nursery.start_soon(self._server.read_stdout)
        self._nursery.start_soon(self._server.read_stderr)
        await self._server.wait_serving()
        if any(line.startswith("account key: ") for line in self._server.stdout):
            key = self._account_key = self._server.account_key
            self.environment = {**self.environment, "MEMORYROUTER_ACCOUNT_KEY": key, "MEMORYROUTER_API_KEY": key}

    async def _run_shell(self, block: Block, script: str) -> None:
        commands = [line for line in script.strip().split("\n") if not line.startswith("#")]
        if SERVES.search(commands[-1]) and re.search(r"\b(make|memoryrouter|router) ", commands[-1]):
            await self.stop_server()
            await self._serve(script)
            return
        if "with the server stopped" in block.marks:
            await self.stop_server()
        else:
            await self._serve()
            script = self._filled_in(block.text)  # the key is known now
        kept = self.folder / ".environment"
        with trio.fail_after(PATIENCE_S):
            done = await trio.run_process(
                ["bash", "-e", "-c", f"{script}\nenv -0 >'{kept}'"],
                cwd=self.folder, env=self.environment, stdin=b"", capture_stdout=True, capture_stderr=True, check=False,
            )  # fmt: skip
        self.output = done.stdout.decode()
        assert done.returncode == 0, f"{block.place}: exit code {done.returncode}\n{self.output}{done.stderr.decode()}"
        entries = kept.read_bytes().decode().split("\0")
        self.environment = dict(entry.split("=", 1) for entry in entries if entry)

    async def _run_python(self, block: Block) -> None:
        if self._python is None:
            self._python = await trio.lowlevel.open_process(
                [sys.executable, str(WORKER)],
                cwd=self.folder, env=self.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                start_new_session=True,
            )  # fmt: skip
        assert self._python.stdin is not None
        assert self._python.stdout is not None
        code = self._filled_in(block.text)
        asked = {"code": code, "page": block.page, "place": block.place, "environment": self.environment}
        answer = b""
        with trio.fail_after(PATIENCE_S):
            await self._python.stdin.send_all(json.dumps(asked).encode() + b"\n")
            while not answer.endswith(b"\n"):
                answer += await self._python.stdout.receive_some()
        result = json.loads(answer)
        self.output = result["output"]
        assert not result["error"], f"{block.place}:\n{self.output}{result['error']}"

    async def _read_json(self, block: Block) -> None:
        value = json.loads(block.text)
        if "request" not in block.marks:
            return
        await self._serve()
        method, _, path = block.marks["request"].partition(" ")
        key = self.environment["MEMORYROUTER_ACCOUNT_KEY"]
        headers = {"Authorization": f"Bearer {key}"}
        async with _open_http(headers) as http:
            answer = await http.request(method, f"http://{self._addresses[0]}{path}", json=value)
        assert answer.is_success, f"{block.place}: {answer.status_code} {answer.text}"
        self.output = answer.text

    def _read_toml(self, block: Block) -> None:
        if "another program" in block.marks:
            tomllib.loads(block.text)
            return
        file = self.folder / ".settings.toml"
        file.write_text(block.text, encoding="utf-8")
        load_settings(file, {})

    def _filled_in(self, text: str) -> str:
        text = SERVER_ADDRESS.sub(self._addresses[0], text)
        text = PROVIDER_ADDRESS.sub(self._addresses[1], text)
        return ACCOUNT_KEY.sub(self.environment.get("MEMORYROUTER_ACCOUNT_KEY", "mk_..."), text)


def _open_http(headers: Mapping[str, str] | None = None) -> httpx.AsyncClient:
    return httpx.AsyncClient(trust_env=False, timeout=PATIENCE_S, headers=headers, verify=False)  # of the test's making


def assert_printed(block: Block, output: str) -> None:
    """The block is what was printed; `...` stands for anything."""
    pattern = ".*?".join(re.escape(part) for part in block.text.strip().split("..."))
    assert re.fullmatch(pattern, output.strip(), re.DOTALL), f"{block.place}: printed was\n{output}"


@asynccontextmanager
async def open_page(folder: Path, commands: Path) -> AsyncIterator[PageRun]:
    """A page in this new folder, with a provider beside it; `commands` comes first on its PATH."""
    make_checkout(folder)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    provider = KindProvider(listeners[0].socket.getsockname()[1])
    with trio.socket.socket() as free:
        await free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, provider.serve, listeners)
        page = PageRun(folder, nursery, _environment(folder, commands, provider, port))
        try:
            yield page
            await page.stop_server()
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(PATIENCE_S):
                await page.kill()
            nursery.cancel_scope.cancel(reason="the page is over")


def make_checkout(folder: Path) -> None:
    """A folder that looks like the project after `make test`, without its data but for the embedding model."""
    (folder / ".venv").mkdir(parents=True)
    for part in ("bin", "lib", "pyvenv.cfg"):  # Python looks for the last beside the folder of its first name
        (folder / ".venv" / part).symlink_to(Path(sys.prefix) / part)
    for name in CHECKOUT:
        (folder / name).symlink_to(ROOT / name)
    for stamp in ("installed", "installed-for-tests"):
        (folder / ".venv" / stamp).touch()
    put_model(folder / "data")
    (folder / "home").mkdir()
    (folder / "home" / ".curlrc").write_text("fail-with-body\nshow-error\n", encoding="utf-8")


def _environment(folder: Path, commands: Path, provider: KindProvider, port: int) -> dict[str, str]:
    assert shutil.which("curl"), "the documents use curl"
    origin = provider.base_url.removesuffix("/v1")
    own: Mapping[str, Any] = {
        f"MEMORYROUTER_PROVIDERS__{name.upper()}__{field}": value
        for name, path in PROVIDERS.items()
        for field, value in (("BASE_URL", origin + path), ("API_KEY", "sk-of-the-server"))
    }
    return {
        "PATH": f"{commands}:{folder / '.venv' / 'bin'}:{os.environ['PATH']}",
        "HOME": str(folder / "home"),
        "LANG": "C.UTF-8",
        "MEMORYROUTER_SERVER__PORT": str(port),
        "MEMORYROUTER_STORE__SHARDS": "1",
        "MEMORYROUTER_BASE_URL": f"http://127.0.0.1:{port}",
        **PATIENT_ENVIRONMENT,
        **own,
    }
