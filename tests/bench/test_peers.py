"""Rivals are installed as pinned, outside of the repository, and never in a version known to be harmful."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from bench.peers import environments
from bench.peers.environments import HERE, REFUSED, NotInstalled, open_work_dir, pinned, python_environment
from bench.peers.processes import NotStarted, printed_url, running, wait_ready
from bench.peers.recipes import GATEWAYS
from bench.peers.stores import RIVALS

LOCKS = sorted(path.stem for path in HERE.glob("*.in"))


def test_a_compromised_release_is_refused_before_anything_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environments, "HERE", tmp_path)
    for version in REFUSED["litellm"]:
        (tmp_path / "litellm.txt").write_text(f"aiohttp==3.14.5\nlitellm[proxy]=={version} \\\n    --hash=sha256:00\n")
        with pytest.raises(NotInstalled, match="harmful"):
            python_environment("litellm", tmp_path / "work")
    assert not (tmp_path / "work").exists()


def test_nothing_is_installed_into_the_repository() -> None:
    with pytest.raises(NotInstalled, match="outside"), open_work_dir(HERE / "work"):
        pass
    assert not (HERE / "work").exists()


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_has_the_version_that_was_asked_for_and_hashes_for_all(lock: str) -> None:
    versions = pinned(lock)
    for wanted in (HERE / f"{lock}.in").read_text().split():
        package, _, version = wanted.partition("==")
        assert versions[package.partition("[")[0]] == version
    text = (HERE / f"{lock}.txt").read_text().replace("\\\n", " ")
    pins = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert len(pins) >= len(versions) > 0
    assert [line for line in pins if "--hash=sha256:" not in line] == []
    assert "://" not in text


def test_the_lock_of_node_has_the_pins_and_a_digest_for_every_package() -> None:
    lock = json.loads((HERE / "portkey" / "package-lock.json").read_text())
    packages = {name.rpartition("node_modules/")[2]: found for name, found in lock["packages"].items() if name}
    assert packages["@portkey-ai/gateway"]["version"] == GATEWAYS["portkey"][0]
    assert (packages["hono"]["version"], packages["@hono/node-server"]["version"]) == ("4.9.7", "1.13.5")
    assert [name for name, found in packages.items() if not found.get("integrity")] == []


def test_tables_name_the_versions_that_are_locked() -> None:
    for name, (version, _) in GATEWAYS.items():
        if name != "portkey":
            assert pinned(name)[name] == version
    packages = {
        "mem0": "mem0ai",
        "chroma": "chromadb",
        "langchain": "langchain-core",
        "llama-index": "llama-index-core",
    }
    for lock, version in RIVALS.values():
        assert pinned(lock)[packages[lock]] == version.rpartition(" ")[2]


def test_a_program_that_ends_is_reported_with_what_it_wrote(tmp_path: Path) -> None:
    with running(["sh", "-c", "echo url: http://127.0.0.1:7/x; echo the port is taken >&2"], tmp_path, {}) as process:
        process.wait(timeout=60)
        assert printed_url(tmp_path) == "http://127.0.0.1:7"
        with pytest.raises(NotStarted, match=re.escape("the port is taken")):
            wait_ready(process, tmp_path, lambda: False)


def test_a_program_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    with running(["sh", "-c", "sleep 1000 & echo $! > child; wait"], tmp_path, {}) as process:
        wait_ready(process, tmp_path, lambda: (tmp_path / "child").exists() and (tmp_path / "child").read_text() != "")
        child = int((tmp_path / "child").read_text())
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().rsplit(")", 1)[1].split()[0] == "Z"
