"""Bodies as their provider wants them: the edits of its settings, and no others."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.provider_settings import BUILT_IN_PROVIDERS, ProviderSettings
from router.providers.tweaks import tweaked

_MISTRAL = BUILT_IN_PROVIDERS["mistral"]
_COUNTING = ProviderSettings(ask_for_usage=True)


def edit(provider: ProviderSettings, **body: Any) -> tuple[Any, bool]:
    result = tweaked(msgspec.json.encode(body), provider)
    return msgspec.json.decode(result.body), result.usage_added


@pytest.mark.parametrize("name", [name for name in BUILT_IN_PROVIDERS if name != "mistral"])
def test_other_providers_get_the_very_same_bytes(name: str) -> None:
    body = b'{ "stream": true, "stream_options": {}, "max_completion_tokens": 1e1, "seed": 1 }'

    result = tweaked(body, BUILT_IN_PROVIDERS[name])

    assert result.body is body
    assert not result.usage_added


def test_mistral_gets_its_own_names_and_nothing_that_it_refuses() -> None:
    body = b'{"model": "m","max_completion_tokens": 1e1,"stream_options":{"include_usage":true},"seed":5,"store":false}'

    assert tweaked(body, _MISTRAL).body == b'{"model":"m","max_tokens":1e1,"random_seed":5}'


def test_a_field_under_the_providers_own_name_is_kept() -> None:
    assert edit(_MISTRAL, max_completion_tokens=1, max_tokens=2) == ({"max_tokens": 2}, False)


def test_a_body_that_needs_no_edit_stays_as_it_is() -> None:
    body = b'{ "model": "m", "messages": [ ] }'

    assert tweaked(body, _MISTRAL).body is body
    assert tweaked(body, _COUNTING).body is body


@pytest.mark.parametrize(
    ("options", "sent", "added"),
    [
        (None, {"include_usage": True}, True),
        ({}, {"include_usage": True}, True),
        ({"include_usage": False}, {"include_usage": True}, True),
        ({"include_usage": None, "x": 1}, {"include_usage": True, "x": 1}, True),
        ({"include_usage": True, "x": 1}, {"include_usage": True, "x": 1}, False),
        ("wrong", "wrong", False),
    ],
)
def test_counts_are_asked_for_unless_the_client_did(options: Any, sent: Any, added: bool) -> None:
    assert edit(_COUNTING, stream=True, stream_options=options) == ({"stream": True, "stream_options": sent}, added)


def test_counts_are_asked_for_where_the_client_names_no_options() -> None:
    assert edit(_COUNTING, stream=True) == ({"stream": True, "stream_options": {"include_usage": True}}, True)


@pytest.mark.parametrize("body", [{"stream": False}, {}, {"stream": None}])
def test_replies_in_one_piece_have_their_counts_anyway(body: dict[str, Any]) -> None:
    assert edit(_COUNTING, **body) == (body, False)


def test_a_provider_that_refuses_the_option_is_not_asked() -> None:
    provider = msgspec.structs.replace(_MISTRAL, ask_for_usage=True)

    assert edit(provider, stream=True) == ({"stream": True}, False)
