"""The operator's commands on a cluster: their results, their words and their exit codes."""

from __future__ import annotations

import json

import pytest

from models.version import VERSION
from router.cli import run_program
from tests.actors.cluster.house import PARTS, connected, prepare
from tests.router.test_cli import error_line, run_json


@pytest.fixture
def cluster_url(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database on which alice owns everything, and bob nothing yet; the settings name it."""
    prepare(postgres_url)
    connection = connected(postgres_url)
    for name in ("alice", "bob"):
        connection.execute(
            "INSERT INTO node (node_id, incarnation, addr, version, expires_at)"
            " VALUES (?, 1, ?, ?, now() + interval '1 hour')",
            (name, f"{name}:1", VERSION),
        )
    connection.execute("UPDATE part SET owner = 'alice', incarnation = 1, epoch = 1")
    connection.close()
    monkeypatch.setenv("MEMORYROUTER_STORE__KIND", "postgres")
    monkeypatch.setenv("MEMORYROUTER_STORE__URL", postgres_url)
    return postgres_url


@pytest.mark.parametrize("command", ["status", "drain", "move"])
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run_program(["cluster", command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"Usage: memoryrouter cluster {command}")


def test_without_postgresql_there_is_no_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["cluster", "status"]) == 2
    assert "a cluster needs PostgreSQL" in error_line(capsys)


def test_status_is_a_list_and_an_exit_code(cluster_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_program(["cluster", "status"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[:3] for line in out] == [["alice", "alive", "alice:1"], ["bob", "alive", "bob:1"]]
    assert run_program(["cluster", "status", "--parts"]) == 1
    assert len(capsys.readouterr().out.splitlines()) == 2 + PARTS
    assert run_program(["cluster", "drain", "bob"]) == 0
    capsys.readouterr()
    assert run_program(["cluster", "status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["settled"], found["parts"]) == (True, PARTS)
    assert [(node["node_id"], node["state"], node["parts"]) for node in found["nodes"]] == [
        ("alice", "alive", PARTS),
        ("bob", "draining", 0),
    ]


def test_a_node_is_drained_and_comes_back(cluster_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    drained = run_json(capsys, "cluster", "drain", "alice")
    assert drained == {"node": "alice", "state": "draining", "parts": PARTS, "parts_placed": 0}
    back = run_json(capsys, "cluster", "drain", "alice", "--undo")
    assert back != drained
    assert isinstance(back, dict)
    assert back["state"] == "alive"
    assert run_program(["cluster", "drain", "carol"]) == 1
    assert "There are: alice, bob." in error_line(capsys)


def test_a_partition_is_moved(cluster_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    moved = run_json(capsys, "cluster", "move", "3", "bob")
    assert moved == {"part": 3, "owner": "alice", "placed": "bob", "epoch": 1, "pinned": "bob"}
    unpinned = run_json(capsys, "cluster", "move", "3", "--unpin")
    assert isinstance(unpinned, dict)
    assert unpinned["pinned"] is None
    assert run_program(["cluster", "move", "3"]) == 2
    assert "either NODE or --unpin" in error_line(capsys)
    assert run_program(["cluster", "move", "99", "bob"]) == 1
    assert "partitions 0 to" in error_line(capsys)
