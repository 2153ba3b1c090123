"""One content: what it says, and that adding a text leaves its other parts alone."""

from __future__ import annotations

import pytest

from models.errors import InvalidRequest
from router.providers.gemini_content import GeminiContent, put_into_instruction


def content(raw: bytes) -> GeminiContent:
    return GeminiContent(raw, place="contents[0]")


def test_a_content_is_sent_as_it_came() -> None:
    """Unless it carries our own field."""
    assert content(b'{ "parts":[ ] }').sent() == b'{ "parts":[ ] }'
    assert content(b'{ "parts":[ ], "memory":false}').sent() == b'{"parts":[ ]}'


def test_a_text_goes_in_front_of_the_first_text() -> None:
    """Other parts keep their bytes."""
    raw = b'{"parts":[{"inlineData":{"data":"AA\\/="}}, {"text":"b\\u0041"}],"role":"user"}'

    assert content(raw).with_text_first("a") == (
        b'{"parts":[{"inlineData":{"data":"AA\\/="}},{"text":"a"},{"text":"b\\u0041"}],"role":"user"}'
    )


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b'{"parts":[{"text":"x"}]}', True),
        (b'{"parts":{"inlineData":{}}}', True),
        (b'{"parts":[{"functionResponse":{}},{"text":"x"}]}', True),
        (b'{"parts":[{"functionResponse":{}},{"function_response":{}}]}', False),
        (b'{"parts":[]}', False),
        (b'{"parts":null}', False),
        (b'{"parts":["x",7]}', False),
        (b"{}", False),
    ],
)
def test_tool_results_alone_say_nothing(raw: bytes, said: bool) -> None:
    """Nothing can be put in front of them."""
    assert content(raw).is_said() is said


def test_a_reply_in_parts_is_one_text() -> None:
    """As `response.text` has it; a user's parts are lines."""
    assert content(b'{"role":"model","parts":[{"text":"a"},{"text":"b"}]}').text() == "ab"
    assert content(b'{"role":"user","parts":[{"text":"a"},{"text":"b"}]}').text() == "a\nb"


def test_a_content_of_a_wrong_type_is_refused() -> None:
    """With its place."""
    with pytest.raises(InvalidRequest) as caught:
        content(b"[]")

    assert caught.value.field == "contents[0]"


def test_an_instruction_keeps_its_parts() -> None:
    """The text comes in front of them."""
    members = {"systemInstruction": b'{"role":"system","parts":[{"text":"b\\u0041"}]}'}
    put_into_instruction(members, "a")

    assert members == {"systemInstruction": b'{"role":"system","parts":[{"text":"a"},{"text":"b\\u0041"}]}'}
