"""The side-by-side comparison: whom it asks, what it asks, and what it subtracts."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest

from bench._harness import running_provider
from bench._load import Load
from bench._machine import ROOT
from bench._results import Table
from bench._targets import Target, chat_requests, checkout_of, target_of
from bench.proxy import SHAPES, add_points, added, measured


def test_a_target_is_a_name_a_url_and_headers() -> None:
    text = "lite=http://127.0.0.1:4000/v1/;Authorization=Bearer sk-1;model=openai/{model};pid=12;x-y=a=b"
    assert target_of(text) == Target(
        name="lite",
        url="http://127.0.0.1:4000/v1",
        headers=(("Authorization", "Bearer sk-1"), ("x-y", "a=b")),
        model="openai/{model}",
        pid=12,
    )


@pytest.mark.parametrize(
    "text", ["http://x/v1", "a=https://x/v1", "=http://x", "a=http://x;b", "a=http://x;pid=z", "a=", ""]
)
def test_what_is_no_target_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        target_of(text)


def test_a_checkout_is_a_directory_with_a_server(tmp_path: Path) -> None:
    assert checkout_of(f"now={ROOT}") == ("now", ROOT)
    with pytest.raises(argparse.ArgumentTypeError):
        checkout_of(f"x={tmp_path}")


def test_requests_are_all_different_and_whole() -> None:
    target = target_of("a=http://h:1/p/v1;X-A=100%;model=m/{model}")
    request = chat_requests(target, "burst", stream=True)
    seen = set()
    for number in (0, 511, 512, 99_999_999):
        head, _, body = request(number).partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        assert lines[0] == "POST /p/v1/chat/completions HTTP/1.1"
        assert {"X-A: 100%", f"Content-Length: {len(body)}"} <= set(lines)
        asked = json.loads(body)
        assert (asked["model"], asked["stream"]) == ("m/burst", True)
        assert 800 < len(body) < 1_100
        seen.add(asked["messages"][-1]["content"])
    assert len(seen) == 4


def test_what_direct_calls_take_is_subtracted() -> None:
    row = added({"requests_per_s": 5.0, "p50_ms": 3.5, "p99_ms": 9.0}, {"p50_ms": 0.5, "first_byte_p50_ms": 1.0})
    assert row == {"requests_per_s": 5.0, "added_p50_ms": 3.0, "p50_ms": 3.5, "p99_ms": 9.0}


def test_targets_are_asked_in_turns_and_wait_until_they_are_done() -> None:
    """Two ways to the same mock, one with a process and work behind its answers."""
    settled: list[str] = []
    with running_provider() as port:
        url = f"http://127.0.0.1:{port}/v1"
        targets = [
            Target(name="direct", url=url, baseline=True),
            Target(
                name="other", url=url, pid=os.getpid(), mark=b"event-stream", settle=lambda: settled.append("other")
            ),
        ]
        table = Table("t", {})
        load = Load(url="", request=bytes, connections=2, seconds=0.1, first=7)
        sent = add_points(table, targets, SHAPES["burst"], load)
        assert settled == ["other"]
        assert list(table.rows) == list(table.curves) == ["direct, 2 connections", "other, 2 connections"]
        direct, other = table.rows.values()
        assert sent >= int(direct["samples"]) + int(other["samples"]) > 0
        assert {"added_p50_ms", "added_first_byte_p50_ms", "cpu_ms_per_chunk", "cpu_s_per_1000_requests"} <= set(other)
        assert other["share_recalled"] == 100
        assert not {name for name in direct if name.startswith(("added", "cpu"))}
        chosen = argparse.Namespace(
            repeat=2, shapes=["whole"], connections=[1], seconds=0.05, rate=50.0, rate_connections=2
        )
        tables = list(measured(chosen, targets))
    assert [table.title for table in tables] == [
        "whole replies, closed loop", "whole replies, open loop, 50/s",
    ] * 2  # fmt: skip
    assert tables[0].baseline == ("direct, 1 connection",)
    assert "generator_late_p99_ms" in tables[1].rows["other, 2 connections"]
