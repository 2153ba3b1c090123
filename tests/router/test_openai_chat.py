"""Chat Completions: bytes that nobody asked to change do not change, and errors reach the SDK."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRequest
from router.providers.base import Turn
from router.providers.json_bytes import split_array, split_object
from router.providers.openai_chat import OPENAI_CHAT, ChatCompletionsRequest
from router.providers.request_parts import OPTION_FIELDS
from router.sse import EventSplitter
from tests.fakes.provider import chat_chunk

BLOCK = "<memory_context>\nRex is a dog.\n</memory_context>"
USER = b'{"role": "user",  "content": "Caf\\u00e9 or t\xc3\xa9?", "x_vendor": 1.50}'
SYSTEM = b'{ "content":"Be brief.","role":"system" }'


def parse(**body: Any) -> ChatCompletionsRequest:
    return OPENAI_CHAT.parse_request(
        json.dumps({"model": "m", "messages": [{"role": "user", "content": "hi"}], **body}).encode()
    )


def request_of(*messages: bytes, more: bytes = b"") -> ChatCompletionsRequest:
    return OPENAI_CHAT.parse_request(b'{"model":"openai/m","messages":[' + b",".join(messages) + b"]" + more + b"}")


def sent_messages(body: bytes) -> list[bytes]:
    return split_array(split_object(body)["messages"])


# --- requests ---------------------------------------------------------------------------------------------------------


def test_without_memory_only_the_model_changes() -> None:
    """Unknown members, number formats, escapes and spaces inside members leave as they came."""
    request = request_of(SYSTEM, USER, more=b', "temperature": 1.0, "x_new": {"b":1,  "a":[1e2]}')

    assert request.encode(model="m-2") == (
        b'{"model":"m-2","messages":[' + SYSTEM + b"," + USER + b'],"temperature":1.0,"x_new":{"b":1,  "a":[1e2]}}'
    )


def test_the_block_becomes_the_first_text_of_the_last_user_message() -> None:
    """Messages before it are byte-identical, and its own text keeps its bytes."""
    request = request_of(SYSTEM, USER, b'{"role":"assistant","content":"Both"}', USER)
    before, after = sent_messages(request.encode(model="m")), sent_messages(request.encode(model="m", block=BLOCK))

    assert after[:3] == before[:3] == [SYSTEM, USER, b'{"role":"assistant","content":"Both"}']
    assert json.loads(after[3]) == {"role": "user", "content": f"{BLOCK}\n\nCafé or té?", "x_vendor": 1.5}
    assert b"Caf\\u00e9 or t\xc3\xa9?" in after[3]
    assert b"1.50" in after[3]


def test_content_parts_get_a_new_first_part() -> None:
    """The image behind it is not re-encoded."""
    parts = b'[ {"type":"image_url","image_url":{"url":"data:image/png;base64,AA\\/A="}},{"type":"text","text":"?"}]'
    request = request_of(b'{"role":"user","content":' + parts + b"}")

    content = split_object(sent_messages(request.encode(model="m", block=BLOCK))[0])["content"]

    assert split_array(content)[1:] == split_array(parts)
    assert json.loads(content)[0] == {"type": "text", "text": BLOCK}


def test_in_a_tool_loop_the_block_stays_in_the_message_that_began_it() -> None:
    """Everything up to the last tool result is the same in the next request of the loop."""
    call = b'{"role":"assistant","content":null,"tool_calls":[{"id":"1","type":"function"}]}'
    result = b'{"role":"tool","tool_call_id":"1","content":"42"}'
    first, second = request_of(SYSTEM, USER, call, result), request_of(SYSTEM, USER, call, result, call, result)
    sent = sent_messages(second.encode(model="m", block=BLOCK))

    assert sent[:4] == sent_messages(first.encode(model="m", block=BLOCK))
    assert BLOCK.split("\n")[1].encode() in sent[1]
    assert first.anchor_hash() == second.anchor_hash() is not None


def test_the_anchor_hash_covers_the_messages_up_to_the_anchor() -> None:
    """A changed prefix or another anchor gives another hash; where one message ends matters too."""
    hashes = [
        request_of(USER).anchor_hash(),
        request_of(SYSTEM, USER).anchor_hash(),
        request_of(USER, USER).anchor_hash(),
        request_of(USER, b'{"role":"assistant","content":"a"}', USER).anchor_hash(),
    ]

    assert len(set(hashes)) == 4
    assert request_of(SYSTEM).anchor_hash() is None


def test_without_a_user_message_the_tail_takes_no_block() -> None:
    """There is nothing to ask about, so nothing is injected."""
    assert BLOCK.encode() not in request_of(SYSTEM).encode(model="m", block=BLOCK)


@pytest.mark.parametrize("role", ["system", "developer"])
def test_system_injection_puts_the_block_before_the_system_text(role: str) -> None:
    """As the hosted product does; the user's messages are untouched."""
    system = SYSTEM.replace(b"system", role.encode())
    sent = sent_messages(request_of(USER, system).encode(model="m", block=BLOCK, injection="system"))

    assert sent[0] == USER
    assert json.loads(sent[1])["content"] == f"{BLOCK}\n\nBe brief."


def test_system_injection_without_a_system_message_adds_one() -> None:
    """In front of all others."""
    sent = sent_messages(request_of(USER).encode(model="m", block=BLOCK, injection="system"))

    assert json.loads(sent[0]) == {"role": "system", "content": BLOCK}
    assert sent[1:] == [USER]


def test_own_fields_are_read_and_not_sent() -> None:
    """Strict providers answer 400 to fields they do not know."""
    own: dict[str, Any] = dict.fromkeys(OPTION_FIELDS, "x") | {"session_id": 7, "memory": False}
    request = parse(**own, temperature=0, messages=[{"role": "user", "content": "hi", "memory": False}])

    assert request.options == own
    assert json.loads(request.encode(model="m")) == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "temperature": 0,
    }


def test_turns_are_what_users_and_assistants_say() -> None:
    """No system prompts, tool traffic or thinking; attachments as placeholders; the do-not-store mark is kept."""
    request = parse(
        messages=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": "Be kind."},
            {"role": "user", "content": "one", "memory": False},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
            {"role": "tool", "tool_call_id": "1", "content": "42"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "two"}]},
            {"role": "assistant", "content": None, "refusal": "no"},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "look"},
                    {"type": "image_url", "image_url": {"url": "data:"}},
                    {"type": "input_audio", "input_audio": {}},
                    {"type": "file", "file": {}},
                    {"type": "x_new"},
                    {"type": "text", "text": "here"},
                ],
            },
            {"role": "user", "content": "  "},
            {"role": "assistant"},
        ]
    )

    assert request.turns() == [
        Turn(role="user", text="one", remember=False),
        Turn(role="assistant", text="two"),
        Turn(role="assistant", text="no"),
        Turn(role="user", text="look\n[image]\n[audio]\n[file]\n[attachment]\nhere"),
    ]


def test_lone_surrogates_pass_and_read_as_replacement_characters() -> None:
    """The provider gets the client's bytes; memory gets text that can be stored."""
    message = b'{"role":"user","content":"a\\ud800b \\ud83d\\ude42"}'
    request = request_of(message, more=b',"x_\\udc00":1')
    sent = request.encode(model="m", block=BLOCK)

    assert request.turns() == [Turn(role="user", text="a\ufffdb 🙂")]
    assert sent_messages(request.encode(model="m")) == [message]
    assert b"a\\ud800b" in sent
    assert json.loads(sent)["x_\udc00"] == 1


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", None),
        (b"{", None),
        (b'{"model":"m","messages":[{"role":"user","content":"\xff"}]}', None),
        (b"[]", None),
        (b"null", None),
        (b'{"messages":[{"role":"user","content":"x"}]}', "model"),
        (b'{"model":"","messages":[{"role":"user","content":"x"}]}', "model"),
        (b'{"model":7,"messages":[{"role":"user","content":"x"}]}', "model"),
        (b'{"model":"m"}', "messages"),
        (b'{"model":"m","messages":[]}', "messages"),
        (b'{"model":"m","messages":{"role":"user"}}', "messages"),
        (b'{"model":"m","messages":["x"]}', "messages[0]"),
        (b'{"model":"m","messages":[{"role":"user","content":"x"},{"content":"x"}]}', "messages[1].role"),
        (b'{"model":"m","messages":[{"role":1,"content":"x"}]}', "messages[0].role"),
        (b'{"model":"m","messages":[{"role":"user","content":7}]}', "messages[0].content"),
        (b'{"model":"m","messages":[{"role":"user","content":{}}]}', "messages[0].content"),
        (b'{"model":"m","stream":"yes","messages":[{"role":"user","content":"x"}]}', "stream"),
        (b'{"model":"m","messages":[{"role":"user","content":' + b"[" * 1000 + b"]" * 1000 + b"}]}", "body"),
    ],
)
def test_bad_requests_name_their_field(body: bytes, field: str | None) -> None:
    """Never a crash, never a guess."""
    with pytest.raises(InvalidRequest) as caught:
        OPENAI_CHAT.parse_request(body)

    assert caught.value.field == field


def test_a_byte_order_mark_and_null_options_are_fine() -> None:
    """Some clients send both."""
    body = b'\xef\xbb\xbf{"model":"m","stream":null,"n":null,"stream_options":null,"messages":[{"role":"user"}]}'
    request = OPENAI_CHAT.parse_request(body)

    assert (request.stream, request.choices, request.include_usage, request.turns()) == (False, 1, False, [])


_JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=5)
_MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "tool"])},
    optional={
        "content": st.none()
        | st.text(max_size=20)
        | st.lists(st.fixed_dictionaries({"type": st.text(max_size=5), "text": _JSON})),
        "x": _JSON,
    },
)


@given(st.lists(_MESSAGES, min_size=1, max_size=6), st.sampled_from(["tail", "system"]), st.booleans())
def test_injection_changes_one_message_only(messages: list[dict[str, Any]], injection: Any, ascii_only: bool) -> None:
    """Whatever the conversation, taking the block out again gives the request back."""
    body = json.dumps({"model": "m", "messages": messages}, ensure_ascii=ascii_only).encode()
    request = OPENAI_CHAT.parse_request(body)
    plain = sent_messages(request.encode(model="m"))
    sent = sent_messages(request.encode(model="m", block=BLOCK, injection=injection))
    added = len(sent) - len(plain)
    changed = [index for index, raw in enumerate(sent[added:]) if raw != plain[index]]

    assert plain == split_array(split_object(body)["messages"])
    assert len(changed) + added <= 1
    for index in changed:
        before, after = json.loads(plain[index]), json.loads(sent[index])
        if isinstance(before["content"], str):
            assert after.pop("content") == f"{BLOCK}\n\n{before.pop('content')}"
        else:
            assert after.pop("content") == [{"type": "text", "text": BLOCK}, *before.pop("content")]
        assert after == before


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (404, "not_found_error"),
        (413, "invalid_request_error"),
        (429, "rate_limit_error"),
        (500, "server_error"),
        (504, "server_error"),
    ],
)
def test_error_bodies_have_the_shape_of_openai(status: int, kind: str) -> None:
    """SDKs read `error.code` and `error.type`."""
    body = OPENAI_CHAT.error_body("No.", status=status, code="slug", field="model")

    assert json.loads(body) == {"error": {"message": "No.", "type": kind, "param": "model", "code": "slug"}}


_SENT = chat_chunk("Grüße\n")


@pytest.mark.parametrize("length", range(len(_SENT) - 2))
def test_an_error_after_any_part_of_an_event_reaches_the_sdk(length: int) -> None:
    """The half event in the client's hands is completed, so the SDK raises the error and no decoding error."""
    line = _SENT[:length]
    ending = OPENAI_CHAT.error_event("It broke.", status=502, code="cut", open_line=line or None)
    stream = _openai_stream(chat_chunk("before") + line + ending)

    assert next(stream).choices[0].delta.content == "before"
    with pytest.raises(openai.APIError, match="It broke") as caught:
        list(stream)
    assert caught.value.code == "cut"


def test_an_error_after_a_line_without_its_blank_line_follows_the_event() -> None:
    """The event before it is whole and stays an event of its own."""
    ending = OPENAI_CHAT.error_event("It broke.", status=502, code="cut", open_line=b"")
    stream = _openai_stream(chat_chunk("before").removesuffix(b"\n") + ending)

    assert next(stream).choices[0].delta.content == "before"
    with pytest.raises(openai.APIError, match="It broke"):
        list(stream)


def _openai_stream(body: bytes) -> Any:
    """The OpenAI SDK's own reading of these bytes."""
    import httpx2  # the SDK's HTTP client

    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body)
    )
    client = openai.OpenAI(api_key="x", base_url="http://sdk.test/v1", http_client=httpx2.Client(transport=transport))
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}], stream=True)


def test_cache_marks_do_not_change_what_a_tool_loop_is_known_by() -> None:
    """Clients move them on with every request, and turn strings into parts to carry them."""
    mark = {"cache_control": {"type": "ephemeral"}}
    plain = [{"role": "user", "content": "Where?"}]
    marked = [{"role": "user", "content": [{"type": "text", "text": "Where?", **mark}]}]
    other = [{"role": "user", "content": "When?"}]

    def known_by(messages: list[dict[str, Any]]) -> bytes | None:
        return OPENAI_CHAT.parse_request(msgspec.json.encode({"model": "m", "messages": messages})).anchor_hash()

    assert known_by(plain) == known_by(marked) != known_by(other)


@pytest.mark.parametrize("kind", [[], {}, 1, None])
def test_a_part_whose_type_is_no_name_says_nothing(kind: Any) -> None:
    """What it is, the provider may refuse."""
    message = {"role": "user", "content": [{"type": kind, "text": "x"}, {"type": "text", "text": "said"}]}
    request = OPENAI_CHAT.parse_request(msgspec.json.encode({"model": "m", "messages": [message]}))
    assert [turn.text for turn in request.turns()] == ["said"]


def test_an_error_after_half_a_crlf_is_an_event_of_its_own() -> None:
    """The line feed that comes first may only complete the line end before it."""
    splitter = EventSplitter(event_bytes_max=1_000)
    splitter.feed(b'data: {"x": 1}\r')
    error = OPENAI_CHAT.error_event("broke", status=502, code="upstream", open_line=splitter.open_line())
    before, last = splitter.feed(error)
    assert before.data == b'{"x": 1}'
    assert msgspec.json.decode(last.data)["error"]["message"] == "broke"
