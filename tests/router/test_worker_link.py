"""What a parent and its worker say to each other arrives whole, and the end of one is known to the other."""

from __future__ import annotations

import os
import socket
import sys
from contextlib import closing
from pathlib import Path

import pytest
import trio

from actors.cluster.workers import Share
from models.errors import SetupError
from models.provider_settings import Secret
from models.settings_loading import load_settings
from router.worker import Worker
from router.worker_link import (
    SENTENCE_CHARACTERS_MAX,
    Beat,
    Link,
    Order,
    Refused,
    State,
    ToParent,
    decode_to_parent,
    decode_to_worker,
    link_pair,
    read_order,
    write_order,
)
from router.worker_process import main
from router.worker_start import worker_command, worker_environment
from tests.patience import PATIENCE_S
from tests.running import ROOT

FULL = """
[server]
workers = 3
allowed_hosts = ["a.example.org", "b.example.org"]
[store]
server_key = "key of the server"
[limits]
trusted_proxies = ["10.0.0.0/8"]
[providers.own]
base_url = "https://llm.example.org/v1"
api_key = "sk-secret"
prefixes = ["own", "mine"]
[embedders.far]
kind = "openai"
model = "m"
base_url = "https://embed.example.org/v1"
api_key = "sk-other"
[fallbacks]
"own/m" = ["openai/m"]
"""


def test_an_order_carries_every_setting_and_no_file_or_variable_has_it(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text(FULL)
    settings = load_settings(tmp_path / "config.toml", {})
    order = Order(index=2, count=3, settings=settings, data_dir="data", listening=3, link=4, lock=5)
    descriptor = write_order(order)
    assert not os.get_inheritable(descriptor), "only the worker that it is for inherits it"
    read = read_order(descriptor)
    assert read == order
    assert read.settings.providers.by_name["own"].api_key == Secret("sk-secret")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


@pytest.mark.parametrize("arguments", [[], ["serve"], ["1000000"]])
def test_nobody_becomes_a_worker_by_accident(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "memoryrouter serve" in capsys.readouterr().err


def test_a_worker_finds_this_program_and_not_its_service_manager(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("PYTHONPATH", "elsewhere")
    environment = worker_environment()
    assert environment["PYTHONPATH"] == f"{ROOT}{os.pathsep}elsewhere"
    assert not {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"} & environment.keys()
    assert worker_command()[0] == sys.executable


async def test_messages_keep_their_bounds_and_the_end_comes_after_them() -> None:
    """Also when the side that ends has not read all that it was told."""
    ours, theirs = map(Link, link_pair())
    with trio.fail_after(PATIENCE_S):
        said: list[ToParent] = [Beat(), Refused("No model.", "Get one."), Beat()]
        for message in said:
            assert theirs.send_nowait(message)
        assert ours.send_nowait(State((0,), (0, 1)))
        theirs.close()
        assert [decode_to_parent(await ours.receive()) for _ in said] == said
        assert await ours.receive() == b""
        assert not ours.send_nowait(State((0,), (0, 1)))
    ours.close()
    ours.close()


async def test_a_last_word_is_never_too_long_to_be_understood(tmp_path: Path) -> None:
    ours, theirs = map(Link, link_pair())
    with closing(ours), trio.fail_after(PATIENCE_S), socket.socket() as unused:
        worker = Worker(Share(0, 1), data_dir=tmp_path, listening=unused, link=theirs)
        worker.refuse(SetupError("\0" * 100_000, hint="\0" * 100_000))
        worker.close()
        match decode_to_parent(await ours.receive()):
            case Refused(message, hint):
                assert message == hint == "\0" * SENTENCE_CHARACTERS_MAX
            case other:
                raise AssertionError(other)


async def test_who_has_hung_up_still_hears() -> None:
    ours, theirs = map(Link, link_pair())
    with trio.fail_after(PATIENCE_S):
        assert ours.send_nowait(State((0, 1), (0, 0)))
        ours.hang_up()
        assert decode_to_worker(await theirs.receive()) == State((0, 1), (0, 0))
        assert await theirs.receive() == b""
        assert theirs.send_nowait(Beat())
        assert decode_to_parent(await ours.receive()) == Beat()
    ours.close()
    theirs.close()


def test_a_side_that_does_not_read_holds_nobody_up() -> None:
    ours, theirs = map(Link, link_pair())
    while ours.send_nowait(State((0, 1), (0, 0))):
        pass
    ours.close()
    theirs.close()
