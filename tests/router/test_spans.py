"""Steps of a request: recorded where it is traced, and nothing anywhere else."""

from __future__ import annotations

import pytest
import trio

from router.headers import HeaderList
from router.spans import (
    CallSpan,
    Step,
    begin_call,
    current_trace_id,
    describe_request,
    record_part,
    step,
    trace_scope,
)


class Trace:
    """A trace that keeps what it is told."""

    def __init__(self, *, sampled: bool = True) -> None:
        self.trace_id = "t1"
        self.steps: list[Step] | None = [] if sampled else None
        self.attributes: dict[str, str | int | float | bool] = {}

    def begin_call(self, provider: str) -> CallSpan:
        return Call()


class Call:
    """A call that nobody records."""

    def answered(self, status: int, attempts: int) -> None:
        """Nothing."""

    def headers(self) -> HeaderList:
        return []

    def end(self, error: str = "") -> None:
        """Nothing."""


def test_outside_of_a_trace_nothing_is_recorded() -> None:
    with step("embed") as recorded:
        describe_request({"http.route": "/"})
        record_part(Step("recall", 0), "rank", after_s=0, took_s=1)

    assert recorded is None
    assert begin_call("openai") is None
    assert current_trace_id() == ""
    assert step("a") is step("b"), "the same nothing for all: no object is made"


def test_what_is_not_sampled_has_an_id_and_no_steps() -> None:
    trace = Trace(sampled=False)
    with trace_scope(trace), step("embed") as recorded:
        describe_request({"http.route": "/"})
        assert current_trace_id() == "t1"

    assert (recorded, trace.steps, trace.attributes) == (None, None, {})


async def test_steps_are_kept_with_their_times_parts_and_errors() -> None:
    """Also those of child tasks."""
    trace = Trace()

    async def child() -> None:
        with step("child"):
            await trio.lowlevel.checkpoint()

    with trace_scope(trace):
        with step("recall") as whole:
            assert whole is not None
            record_part(whole, "rank", after_s=0.25, took_s=0.5)
        with pytest.raises(KeyError), step("embed"):
            raise KeyError("private")
        async with trio.open_nursery() as children:
            children.start_soon(child)
        describe_request({"http.route": "/"})

    assert trace.steps is not None
    rank, recall, embed, of_child = trace.steps
    assert (rank.name, rank.parent, rank.began_ns - recall.began_ns) == ("rank", recall, 250_000_000)
    assert rank.ended_ns - rank.began_ns == 500_000_000
    assert recall.ended_ns >= recall.began_ns
    assert (recall.error, embed.error, of_child.name) == ("", "KeyError", "child")
    assert trace.attributes == {"http.route": "/"}
    assert current_trace_id() == ""
