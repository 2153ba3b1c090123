"""Long work of a turn: in slices, or in a thread."""

from __future__ import annotations

import threading

import pytest

from actors.slices import READ_INLINE_CHUNKS_MAX, read_in_turn


def thread_of(_: None) -> int:
    return threading.get_ident()


async def test_a_small_vault_is_read_in_the_turn_itself() -> None:
    assert await read_in_turn(thread_of, None, chunks=READ_INLINE_CHUNKS_MAX) == threading.get_ident()


async def test_a_large_vault_is_read_in_a_thread_so_that_others_go_on() -> None:
    assert await read_in_turn(thread_of, None, chunks=READ_INLINE_CHUNKS_MAX + 1) != threading.get_ident()


async def test_an_error_of_the_read_is_the_turns() -> None:
    def failing(_: None) -> None:
        raise IndexError("of the vault")

    with pytest.raises(IndexError):
        await read_in_turn(failing, None, chunks=READ_INLINE_CHUNKS_MAX + 1)
