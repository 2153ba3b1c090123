"""Every call to a provider is counted once, however it ends."""

from __future__ import annotations

import pytest

from models.errors import UpstreamError
from router.provider_calls import STATUSES_MAX, ProviderCalls


async def test_an_answer_counts_by_its_status_and_both_its_times() -> None:
    calls = ProviderCalls("openai")
    with calls.under_way() as call:
        assert call.trace_headers() == []
        call.answered(200, 1)

    assert (dict(calls.responses), dict(calls.errors)) == ({"200": 1}, {})
    assert (calls.first_byte_seconds.count, calls.total_seconds.count) == (1, 1)


async def test_a_call_without_an_answer_counts_by_the_errors_code() -> None:
    calls = ProviderCalls("openai")
    with pytest.raises(UpstreamError), calls.under_way():
        raise UpstreamError("It cannot be reached.")

    assert (dict(calls.responses), dict(calls.errors)) == ({}, {UpstreamError.code: 1})
    assert (calls.first_byte_seconds.count, calls.total_seconds.count) == (0, 1)


async def test_what_its_caller_raises_is_no_failure_of_the_provider() -> None:
    """A mistake of ours, a reply that is too long for us, a client that has left."""
    calls = ProviderCalls("openai")

    def end_by(error: Exception) -> None:
        with calls.under_way() as call:
            call.answered(200, 1)
            raise error

    for error in (UpstreamError("too long"), KeyError("a bug")):
        with pytest.raises(type(error)):
            end_by(error)

    assert not calls.errors
    assert calls.total_seconds.count == 2


async def test_statuses_are_bounded() -> None:
    """The provider chooses them."""
    calls = ProviderCalls("openai")
    for status in range(100, 600):
        with calls.under_way() as call:
            call.answered(status, 1)

    assert len(calls.responses) == STATUSES_MAX + 1
    assert calls.responses["other"] == 500 - STATUSES_MAX
