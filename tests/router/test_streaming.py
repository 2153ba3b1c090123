"""The relay's rules, with a provider's chunks in memory: same bytes, one hand-off, a durable end."""

from __future__ import annotations

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from models.errors import MemoryRouterError, Overloaded, StorageFull, UpstreamError, UpstreamTimeout
from router.sse import EventSplitter
from router.streaming import wait_durable
from tests.fakes.provider import DONE, chat_chunk, chat_events
from tests.fakes.proxy import GateCommit, Memory, chop, events_of, relay_of

_FINISH = chat_chunk(finish_reason="stop")


class Chunks:
    """An upstream body: these chunks, then an end or an error."""

    def __init__(self, chunks: list[bytes], error: MemoryRouterError | None = None) -> None:
        self._chunks = iter(chunks)
        self._error = error

    def __aiter__(self) -> Chunks:
        return self

    async def __anext__(self) -> bytes:
        await trio.lowlevel.checkpoint()
        for chunk in self._chunks:
            return chunk
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration


_SIZES = st.lists(st.integers(1, 200), max_size=5)
_STREAMS = st.lists(
    st.sampled_from(
        [chat_chunk("a"), chat_chunk("é🙂"), b": keep-alive\n\n", b"\n", chat_chunk("b").replace(b"\n", b"\r\n")]
    ),
    max_size=6,
).map(b"".join)
_ENDINGS = st.sampled_from([_FINISH + DONE, _FINISH, _FINISH.replace(b"\n", b"\r\n") + DONE, _FINISH.strip(), DONE])


@given(_STREAMS, _ENDINGS, _SIZES)
async def test_bytes_are_the_providers_whatever_the_chunking(start: bytes, ending: bytes, sizes: list[int]) -> None:
    """All bytes, in order; one hand-off; and nothing of the finish before the commit is durable."""
    out = bytearray()
    seen_at_wait: list[bytes] = []

    def become_durable() -> None:
        seen_at_wait.append(bytes(out))
        commit.gate.set()

    commit = GateCommit(on_wait=become_durable)
    memory = Memory(commit)
    async for chunk in relay_of(Chunks(chop(start + ending, sizes)), memory):
        assert chunk
        out += chunk

    assert bytes(out) == start + ending
    assert memory.texts == ["".join(_content_of(data) for data in events_of(start))]
    assert memory.replies[0] is not None
    assert memory.replies[0].complete
    if ending != _FINISH.strip():  # without a line end the finish is only known when the body ends
        events = EventSplitter(event_bytes_max=100_000).feed(start)
        assert len(seen_at_wait) == 1
        # The LF of a CRLF cut by a chunk border may stay with what is held.
        assert seen_at_wait[0].startswith(start[: events[-1].end if events else 0].rstrip(b"\n"))
        assert not seen_at_wait[0][len(start) :].endswith((b"\r", b"\n"))


def _content_of(data: bytes) -> str:
    return "é🙂" if "é🙂".encode() in data or b"\\u" in data else "a" if b'"a"' in data else "b"


@given(
    _STREAMS, _SIZES, st.floats(0, 1), st.sampled_from([None, UpstreamError("It broke."), UpstreamTimeout("Too slow.")])
)
async def test_any_cut_ends_with_an_error_and_no_terminator(
    start: bytes, sizes: list[int], place: float, error: MemoryRouterError | None
) -> None:
    """What came is passed on, the user's turn is handed off once, and the last event is the error."""
    memory = Memory()
    stream = start + _FINISH
    sent = stream[: min(int(place * len(stream)), len(start) + 40)]
    out = b"".join([chunk async for chunk in relay_of(Chunks(chop(sent, sizes), error), memory)])

    assert out.startswith(sent)
    assert memory.replies == [None]
    last = events_of(out)[-1]
    assert b'"code":"upstream_' in last
    assert b"[DONE]" not in out


async def test_a_finish_without_a_line_end_holds_the_end_of_the_body() -> None:
    """Its bytes are out when it is recognised; what is left to hold is the end itself."""
    waiting = trio.CancelScope()
    memory = Memory(GateCommit(on_wait=waiting.cancel))
    relay = relay_of(Chunks([chat_chunk("a"), _FINISH.strip()]), memory)
    assert [await anext(relay), await anext(relay)] == [chat_chunk("a"), _FINISH.strip()]
    with waiting:
        await anext(relay)

    assert waiting.cancelled_caught
    assert memory.texts == ["a"]


async def test_a_failure_that_the_provider_reports_is_passed_on_once() -> None:
    """Its own error event is enough; whatever follows it is the provider's too."""
    stream = chat_chunk("par") + b'data: {"error":{"message":"overloaded","code":529}}\n\n' + DONE
    memory = Memory()
    relay = relay_of(Chunks([stream]), memory)

    assert b"".join([chunk async for chunk in relay]) == stream
    assert memory.replies == [None]
    assert relay.outcome == "failed"


async def test_a_cut_after_the_terminator_is_no_error() -> None:
    """Clients have stopped reading; the exchange is complete."""
    memory = Memory()
    relay = relay_of(Chunks(chat_events(["a"]), UpstreamError("It broke.")), memory)

    assert b"".join([chunk async for chunk in relay]) == b"".join(chat_events(["a"]))
    assert (memory.texts, relay.outcome) == (["a"], "complete")


async def test_a_cut_between_finish_and_terminator_is_told_but_the_reply_counts() -> None:
    """The client may miss its usage chunk; the words are all there."""
    memory = Memory()
    out = [chunk async for chunk in relay_of(Chunks([chat_chunk("a"), _FINISH], UpstreamError("It broke.")), memory)]

    assert memory.texts == ["a"]
    assert out[:2] == [chat_chunk("a"), _FINISH]
    assert b'"error"' in out[2]


async def test_an_event_too_large_to_read_passes_through() -> None:
    """The user's turn is handed off at once, and the reply is not remembered."""
    stream = [chat_chunk("a"), chat_chunk("x" * 5000), *chat_events(["b"])]
    memory = Memory()
    relay = relay_of(Chunks(stream), memory, event_bytes_max=1000)
    out = [(chunk, list(memory.replies)) async for chunk in relay]

    assert out == [(stream[0], []), *((chunk, [None]) for chunk in stream[1:])]
    assert relay.outcome == "unreadable"


async def test_leaving_before_the_finish_hands_off_the_users_turn_only() -> None:
    """Exactly once, however often the relay is closed."""
    memory = Memory()
    relay = relay_of(Chunks(chat_events(["a"])), memory)
    await anext(relay)
    relay.close_nowait()
    relay.close_nowait()

    assert memory.replies == [None]
    assert [chunk async for chunk in relay] == []


async def test_leaving_after_the_finish_has_a_complete_exchange() -> None:
    """The finishing event had come, even if the client did not wait for its commit."""
    waiting = trio.CancelScope()
    memory = Memory(GateCommit(on_wait=waiting.cancel))
    relay = relay_of(Chunks(chat_events(["a"])), memory)
    with waiting:
        while True:
            await anext(relay)
    relay.close_nowait()

    assert (memory.texts, relay.outcome) == (["a"], "complete")


@pytest.mark.parametrize(
    ("memory", "reasons"),
    [
        (Memory(GateCommit()), ["commit_timeout"]),
        (Memory(error=Overloaded("Full.")), ["overloaded"]),
        (Memory(None), []),
    ],
    ids=["slow", "refused", "nothing to store"],
)
async def test_memory_never_holds_the_end_for_good(memory: Memory, reasons: list[str]) -> None:
    """The chat finishes, and the reason why it may not be stored is told."""
    relay = relay_of(Chunks(chat_events(["a"])), memory, commit_wait_s=0.02)

    assert b"".join([chunk async for chunk in relay]) == b"".join(chat_events(["a"]))
    assert (memory.texts, memory.not_durable) == (["a"], reasons)


async def test_a_commit_that_fails_is_told() -> None:
    """By the code of its error; waiting outside of a stream follows the same rule."""
    commit = GateCommit(error=StorageFull("Full."))
    commit.gate.set()

    assert await wait_durable(commit, deadline=trio.current_time() + 30) == "storage_full"
    assert await wait_durable(GateCommit(), deadline=trio.current_time()) == "commit_timeout"
    assert await wait_durable(None, deadline=0) is None
