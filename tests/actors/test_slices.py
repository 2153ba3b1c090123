"""Long work of a turn: in slices, or in a thread."""

from __future__ import annotations

import threading
import time

import pytest
import trio

from actors.slices import READ_INLINE_CHUNKS_MAX, free, read_in_turn


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


class Slow:
    """Takes longer to be freed than a slice lasts."""

    freed = 0

    def __del__(self) -> None:
        until_s = time.perf_counter() + 0.003
        while time.perf_counter() < until_s:
            pass
        Slow.freed += 1


async def test_what_a_vault_held_is_freed_with_room_for_others_in_between() -> None:
    Slow.freed = 0
    seen = []

    async def watch() -> None:
        while Slow.freed < 20:
            seen.append(Slow.freed)
            await trio.lowlevel.checkpoint()

    as_list, as_dict = [Slow() for _ in range(10)], {number: Slow() for number in range(10)}
    async with trio.open_nursery() as children:
        children.start_soon(watch)
        await free([as_list, {}, as_dict, []])
    assert (as_list, as_dict, Slow.freed) == ([], {}, 20)
    assert len(set(seen)) > 10, "one after the other, not all at once"
