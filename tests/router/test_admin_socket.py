"""The admin socket: for its owner only, bounded, replaced when stale, one answer for every request."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
import trio

from models.errors import NotFound, SetupError
from router import admin_socket
from router.admin_socket import AdminError, call_admin, open_admin_socket
from tests.patience import PATIENCE_S


async def perform(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Commands for tests: echo, refuse, crash."""
    match command:
        case "echo":
            return {"arguments": arguments}
        case "refuse":
            raise NotFound("there is no such key.", hint="List them.")
        case _:
            raise RuntimeError("a private detail")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "admin.sock"


async def talk(path: Path, data: bytes) -> bytes:
    """Send raw bytes and read the whole answer."""
    stream = await trio.open_unix_socket(path)
    async with stream:
        await stream.send_all(data)
        answer = bytearray()
        with trio.fail_after(PATIENCE_S):
            async for part in stream:
                answer += part
    return bytes(answer)


async def test_a_command_goes_in_and_its_answer_comes_out(path: Path) -> None:
    async with open_admin_socket(path, perform):
        assert await call_admin(path, "echo", {"name": "ü"}) == {"arguments": {"name": "ü"}}
        assert await call_admin(path, "echo", {}) == {"arguments": {}}


async def test_without_a_server_the_answer_is_none(path: Path) -> None:
    assert await call_admin(path, "echo", {}) is None
    assert await call_admin(path / "not-a-directory" / "admin.sock", "echo", {}) is None


async def test_only_the_owner_may_use_the_file_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        async with open_admin_socket(path, perform):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)


async def test_the_file_is_removed_at_the_end(path: Path) -> None:
    async with open_admin_socket(path, perform):
        assert path.exists()

    assert not path.exists()
    assert await call_admin(path, "echo", {}) is None


async def test_the_file_of_a_dead_server_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    assert await call_admin(path, "echo", {}) is None
    async with open_admin_socket(path, perform):
        assert await call_admin(path, "echo", {}) == {"arguments": {}}


async def test_a_server_that_answers_is_not_replaced(path: Path) -> None:
    async with open_admin_socket(path, perform):
        with pytest.raises(SetupError, match="a running server answers there"):
            async with open_admin_socket(path, perform):
                pass
        assert await call_admin(path, "echo", {}) == {"arguments": {}}


async def test_another_kind_of_file_is_left_alone(path: Path) -> None:
    path.write_text("notes")

    with pytest.raises(SetupError, match="no socket itself"):
        async with open_admin_socket(path, perform):
            pass
    assert path.read_text() == "notes"


async def test_a_path_longer_than_a_socket_address_works(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 80) / ("y" * 80)
    deep.mkdir(parents=True)
    path = deep / "admin.sock"

    async with open_admin_socket(path, perform):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert await call_admin(path, "echo", {}) == {"arguments": {}}
    assert not path.exists()


async def test_a_missing_directory_is_a_setup_error(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="cannot be made: No such file"):
        async with open_admin_socket(tmp_path / "absent" / "admin.sock", perform):
            pass


async def test_a_refusal_reaches_the_caller_with_its_hint(path: Path) -> None:
    async with open_admin_socket(path, perform):
        with pytest.raises(AdminError, match=r"there is no such key\. List them\."):
            await call_admin(path, "refuse", {})


async def test_a_crash_is_answered_without_its_text_and_the_socket_goes_on(path: Path) -> None:
    async with open_admin_socket(path, perform):
        with pytest.raises(AdminError, match="the server's log says why") as caught:
            await call_admin(path, "crash", {})
        assert "private" not in str(caught.value)
        assert await call_admin(path, "echo", {}) == {"arguments": {}}


@pytest.mark.parametrize("line", [b"\n", b"not json\n", b"[]\n", b'{"arguments": {}}\n', b'{"command": 1}\n'])
async def test_a_line_that_is_no_command_gets_an_error(path: Path, line: bytes) -> None:
    async with open_admin_socket(path, perform):
        assert b'"code":"invalid_request"' in await talk(path, line)


async def test_a_request_without_an_end_is_cut_off_at_its_limit(path: Path) -> None:
    async with open_admin_socket(path, perform):
        answer = await talk(path, b"x" * (admin_socket.REQUEST_BYTES_MAX + 1))

    assert b"may have at most 65536 bytes" in answer


async def test_a_client_that_says_nothing_is_told_so_after_the_deadline(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin_socket, "REQUEST_TIMEOUT_S", 0.05)
    async with open_admin_socket(path, perform):
        assert b"took too long" in await talk(path, b"")


async def test_a_client_that_leaves_early_harms_nobody(path: Path) -> None:
    async with open_admin_socket(path, perform):
        for _ in range(admin_socket.CONNECTIONS_MAX + 2):
            await (await trio.open_unix_socket(path)).aclose()
        assert await call_admin(path, "echo", {}) == {"arguments": {}}
