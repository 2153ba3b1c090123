"""The single executable file does everything with nothing around it: no Python, no PATH, no environment.

`make test-binary` builds it first. One folder serves all tests as its cache, so that it is unpacked once.
"""

from __future__ import annotations

import json
import os
import re
import signal
import ssl
import subprocess
import sys
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest
import trio

from models.model_files import MODEL_ID
from models.version import VERSION
from tests.fakes.certificates import SelfSigned
from tests.fakes.trace_receiver import open_trace_receiver
from tests.patience import wait_until
from tests.running import ROOT, Client, ServerProcess, open_http, open_program

BINARY = ROOT / "dist" / "memoryrouter"
NAME_LENGTH, TRAILER_LENGTH = 32, 66
FACTS = ["My dog is called Rex.", "I live in Porto.", "My sister plays the cello.", "I am allergic to peanuts."]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where it unpacks itself."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A working directory that cannot be written to (by others than root), beside the data."""
    folder = tmp_path / "empty"
    folder.mkdir(mode=0o555)
    return folder


@pytest.fixture(scope="module")
def unpacked(cache: Path) -> Path:
    """Its folder, after a first start."""
    assert run("--version", cache=cache).returncode == 0
    return cache / BINARY.read_bytes()[-TRAILER_LENGTH:][:NAME_LENGTH].decode()


def run(*arguments: str, cache: Path, settings: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run it in an environment with its cache folder, these settings and nothing else."""
    environment = {"MEMORYROUTER_UNPACK_DIR": str(cache), **(settings or {})}
    return subprocess.run(
        [BINARY, *arguments], env=environment, cwd="/", capture_output=True, text=True, timeout=300, check=False
    )


def serving(
    cwd: Path, data_dir: Path, cache: Path, settings: Mapping[str, str] | None = None, *, command: tuple[str, ...] = ()
) -> AbstractAsyncContextManager[ServerProcess]:
    """It serves, started by this command if one is given; killed at the end if it still runs."""
    return open_program(
        [*command, str(BINARY), "serve", "--data-dir", str(data_dir), "--port", "0"],
        cwd=cwd, environment={"MEMORYROUTER_UNPACK_DIR": str(cache), **(settings or {})},
    )  # fmt: skip


def test_with_nothing_at_all_it_says_its_version() -> None:
    """`env -i`: not even a home. It finds a folder of its own then."""
    name = BINARY.read_bytes()[-TRAILER_LENGTH:][:NAME_LENGTH].decode()
    done = subprocess.run([BINARY, "--version"], env={}, cwd="/", capture_output=True, text=True, check=True)
    assert done.stdout == f"memoryrouter {VERSION}\n"
    folders = [Path(base) / f"memoryrouter-{os.geteuid()}" / name for base in ("/var/tmp", "/tmp")]
    (used,) = [folder for folder in folders if folder.exists()]
    subprocess.run(["rm", "-r", str(used)], check=True)


def test_it_brings_all_that_it_needs_and_nothing_that_it_must_not(unpacked: Path) -> None:
    names = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*")}
    for wanted in (
        rf"_internal/model/{MODEL_ID}\.\w+\.onnx", "_internal/model/tokenizer.json", "_internal/router/config.toml",
        "_internal/router/dashboard/static/index.html", "_internal/tzdata/zoneinfo/Asia/Tokyo",
        "_internal/certifi/cacert.pem", "_internal/licenses/python/LICENSE.txt", "_internal/licenses/trio/LICENSE",
    ):  # fmt: skip
        assert any(re.fullmatch(wanted, name) for name in names), wanted
    # readline is under the GPL; the others would only be large.
    unwanted = re.compile(r"libreadline|readline\.|/onnx/|pygments|huggingface|hf_xet|/tests/")
    assert [name for name in names if unwanted.search(name) and "/licenses/" not in name] == []


def test_it_runs_on_processors_that_this_one_is_ahead_of(unpacked: Path) -> None:
    """hnswlib is built for the machine that builds it, unless told otherwise: then no AVX is in it."""
    (library,) = (unpacked / "_internal").glob("hnswlib*.so")
    code = subprocess.run(["objdump", "-d", library], capture_output=True, text=True, check=True).stdout
    assert "%xmm" in code
    assert not re.search(r"%[yz]mm", code)


def test_commands_work_and_mistakes_have_their_code(cache: Path, tmp_path: Path) -> None:
    data_dir = str(tmp_path / "data")
    key = json.loads(run("init", "--data-dir", data_dir, "--json", cache=cache).stdout)["account_key"]
    assert key.startswith("mk_")
    assert run("init", "--data-dir", data_dir, cache=cache).returncode == 2
    assert run("keys", "create", "alice", "--data-dir", data_dir, cache=cache).returncode == 0
    assert "alice" in run("keys", "list", "--data-dir", data_dir, cache=cache).stdout
    assert run("backup", str(tmp_path / "backup"), "--data-dir", data_dir, cache=cache).returncode == 0
    assert run("doctor", "--data-dir", data_dir, cache=cache).returncode == 0
    assert run("config", cache=cache).stdout == (ROOT / "config.toml").read_text(encoding="utf-8")
    assert run("completion", "bash", cache=cache).returncode == 0
    assert run("nonsense", cache=cache).returncode == 2


def test_it_brings_the_driver_of_postgresql(cache: Path, postgres_url: str, tmp_path: Path) -> None:
    settings = {"MEMORYROUTER_STORE__KIND": "postgres", "MEMORYROUTER_STORE__URL": postgres_url}
    done = run("init", "--data-dir", str(tmp_path / "node"), "--json", cache=cache, settings=settings)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["account_key"].startswith("mk_")


def test_benchmarks_start_servers_of_their_own(cache: Path) -> None:
    assert "prepare_latency" in run("bench", "--list", cache=cache).stdout
    done = run("bench", "ingest_latency", "--requests", "20", cache=cache)
    assert done.returncode == 0, done.stderr
    assert "p50_ms" in done.stdout


async def test_several_workers_are_processes_of_the_same_file(empty: Path, tmp_path: Path, cache: Path) -> None:
    """It starts itself again; one that is killed is there again soon."""
    settings = {"MEMORYROUTER_SERVER__WORKERS": "2"}
    async with serving(empty, tmp_path / "data", cache, settings) as server, open_http(server.url) as http:
        users = [await Client(http, server.account_key).other(f"user {number}") for number in range(4)]
        for user in users:
            await user.ingest(*FACTS)
            assert FACTS[0] in await user.contents("dog")
        (pid, *_) = [entry["pid"] for entry in server.log if entry["event"] == "worker_started"]
        os.kill(pid, signal.SIGKILL)
        await wait_until(lambda: sum(entry["event"] == "worker_serving" for entry in server.log) == 3)
        server.signal(signal.SIGTERM)
        assert await server.wait() == 0


async def test_it_remembers_recalls_and_chats(empty: Path, tmp_path: Path, cache: Path) -> None:
    """By words and by meaning, in a time zone of the other side, with every vault in hnswlib."""
    settings = {"MEMORYROUTER_INDEX__HNSW_THRESHOLD": "0"}
    async with serving(empty, tmp_path / "data", cache, settings) as server, open_http(server.url) as http:
        client = Client(http, server.account_key)
        assert (await http.get("/health")).json()["version"] == VERSION
        assert (await http.get("/openapi.json")).json()["info"]["version"] == VERSION
        await client.ingest(*FACTS)
        await client.wait_embedded()
        assert (await client.search("what animals do I have?"))[0]["content"] == FACTS[0]
        assert (await client.search("cellos"))[0]["content"] == FACTS[2]  # by its stem
        prepared = await client.prepare("What is my dog called?", headers={"x-timezone": "Asia/Tokyo"})
        assert "Rex" in prepared["context"]
        assert "Rex" in (await client.chat("What is my dog called?", model="local/recall")).text
        page = await http.get("/dashboard/")
        assert page.status_code == 200
        for path in re.findall(r'(?:src|href)="(/dashboard/static/[^"]+)"', page.text):
            assert (await http.get(path)).status_code == 200, path
        server.signal(signal.SIGTERM)
        assert await server.wait() == 0


async def test_kill_loses_nothing_and_leaves_nothing(empty: Path, tmp_path: Path, cache: Path) -> None:
    """Nothing beside it has to be told: no parent that goes on, no folder that stays."""
    before = sorted(path.name for path in cache.iterdir())
    async with serving(empty, tmp_path / "data", cache) as server, open_http(server.url) as http:
        client = Client(http, server.account_key)
        await client.ingest(*FACTS)
        server.signal(signal.SIGKILL)
        assert await server.wait() == -signal.SIGKILL
    async with serving(empty, tmp_path / "data", cache) as server, open_http(server.url) as http:
        client = Client(http, client.key)
        assert await client.contents("dog Porto cello peanuts") == set(FACTS)
        server.signal(signal.SIGINT)
        assert await server.wait() == 0
    assert sorted(path.name for path in cache.iterdir()) == before


async def test_two_at_once_share_what_was_unpacked(empty: Path, tmp_path: Path, cache: Path) -> None:
    """A second one on the same data is refused by its lock, as ever."""
    async with serving(empty, tmp_path / "one", cache) as one, serving(empty, tmp_path / "two", cache) as two:
        assert one.url != two.url
        refused = await trio.to_thread.run_sync(
            lambda: run("serve", "--data-dir", str(tmp_path / "one"), "--port", "0", cache=cache)
        )
        assert refused.returncode == 2
        assert refused.stderr


async def test_it_speaks_tls(empty: Path, tmp_path: Path, cache: Path) -> None:
    own = SelfSigned(tmp_path)
    settings = {
        "MEMORYROUTER_SERVER__TLS_CERTIFICATE_FILE": str(own.certificate),
        "MEMORYROUTER_SERVER__TLS_KEY_FILE": str(own.key),
    }
    trusting: ssl.SSLContext = own.client()
    async with (
        serving(empty, tmp_path / "data", cache, settings) as server,
        open_http(server.url, tls=trusting) as http,
    ):
        assert server.url.startswith("https://")
        assert (await http.get("/readyz")).status_code == 200


async def test_it_delivers_traces(empty: Path, tmp_path: Path, cache: Path) -> None:
    """What is left is sent at the end."""
    with open_trace_receiver() as receiver:
        settings = {"MEMORYROUTER_TRACING__ENDPOINT": receiver.url}
        async with serving(empty, tmp_path / "data", cache, settings) as server, open_http(server.url) as http:
            await Client(http, server.account_key).ingest(*FACTS)
            server.signal(signal.SIGTERM)
            assert await server.wait() == 0
        assert {span.trace_id for span in receiver.spans}


async def test_it_runs_where_no_memory_may_become_code(empty: Path, tmp_path: Path, cache: Path) -> None:
    """What `MemoryDenyWriteExecute=` of the systemd unit forbids; kernels before 6.3 do not know how."""
    forbid = (
        "import ctypes, os, sys; ctypes.CDLL(None).prctl(65, 1, 0, 0, 0); "  # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN
        "os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = (sys.executable, "-c", forbid)
    async with serving(empty, tmp_path / "data", cache, command=command) as server, open_http(server.url) as http:
        client = Client(http, server.account_key)
        await client.ingest(*FACTS)
        await client.wait_embedded()
        assert (await client.search("what animals do I have?"))[0]["content"] == FACTS[0]
