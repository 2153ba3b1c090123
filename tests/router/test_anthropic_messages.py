"""Anthropic Messages: bytes that nobody asked to change do not change, and errors reach the SDK."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import InvalidRequest
from router.providers.anthropic_messages import ANTHROPIC_MESSAGES, MessagesRequest
from router.providers.base import Signal, Turn
from router.providers.json_bytes import split_array, split_object
from router.providers.request_parts import OPTION_FIELDS
from router.sse import EventSplitter
from tests.fakes.claude import claude_event

BLOCK = "<memory_context>\nRex is a dog.\n</memory_context>"
USER = b'{"role": "user",  "content": "Caf\\u00e9 or t\xc3\xa9?", "x_vendor": 1.50}'
ASSISTANT = b'{"role":"assistant","content":[{"type":"text","text":"Both."}]}'
CALL = b'{"role":"assistant","content":[{"type":"tool_use","id":"toolu_1","name":"f","input":{"a":1.0}}]}'
RESULT = b'{"type":"tool_result","tool_use_id":"toolu_1","content":"42"}'
RESULTS = b'{"role":"user","content":[' + RESULT + b"]}"


def request_of(*messages: bytes, more: bytes = b"") -> MessagesRequest:
    body = b'{"model":"anthropic/m","max_tokens":9,"messages":[' + b",".join(messages) + b"]" + more + b"}"
    return ANTHROPIC_MESSAGES.parse_request(body)


def parse(*messages: dict[str, Any], **body: Any) -> MessagesRequest:
    return ANTHROPIC_MESSAGES.parse_request(
        json.dumps({"model": "m", "max_tokens": 9, "messages": list(messages), **body}).encode()
    )


def sent_messages(body: bytes) -> list[bytes]:
    return split_array(split_object(body)["messages"])


def content_of(message: bytes) -> list[bytes]:
    return split_array(split_object(message)["content"])


# --- requests ---------------------------------------------------------------------------------------------------------


def test_without_memory_only_the_model_changes() -> None:
    """Unknown members, number formats, cache marks and spaces inside members leave as they came."""
    more = (
        b', "system":[{"type":"text", "text":"Be brief.","cache_control":{"type":"ephemeral"}}],"x":{"b":1,  "a":1e2}'
    )
    request = request_of(USER, ASSISTANT, more=more)

    assert request.encode(model="m-2") == (
        b'{"model":"m-2","max_tokens":9,"messages":[' + USER + b"," + ASSISTANT + b'],"system":[{"type":"text", '
        b'"text":"Be brief.","cache_control":{"type":"ephemeral"}}],"x":{"b":1,  "a":1e2}}'
    )


def test_the_block_becomes_the_first_text_of_the_last_user_message() -> None:
    """Messages before it are byte-identical, and its own text keeps its bytes."""
    request = request_of(USER, ASSISTANT, USER)
    sent = sent_messages(request.encode(model="m", block=BLOCK))

    assert sent[:2] == [USER, ASSISTANT]
    assert json.loads(sent[2]) == {"role": "user", "content": f"{BLOCK}\n\nCafé or té?", "x_vendor": 1.5}
    assert b"Caf\\u00e9 or t\xc3\xa9?" in sent[2]


def test_content_blocks_get_a_new_first_block() -> None:
    """The image and its cache mark stay as they are."""
    image = b'{"type":"image", "source":{"type":"base64","data":"AA\\/A="},"cache_control":{"type":"ephemeral"}}'
    request = request_of(b'{"role":"user","content":[' + image + b"]}")
    sent = content_of(sent_messages(request.encode(model="m", block=BLOCK))[0])

    assert json.loads(sent[0]) == {"type": "text", "text": BLOCK}
    assert sent[1:] == [image]


def test_the_block_follows_tool_results() -> None:
    """Anthropic refuses a message whose tool results do not come first."""
    words = b'{"type":"text", "text":"And now?"}'
    request = request_of(USER, CALL, b'{"role":"user","content":[' + RESULT + b"," + words + b"]}")
    sent = content_of(sent_messages(request.encode(model="m", block=BLOCK))[2])

    assert (sent[0], sent[2]) == (RESULT, words)
    assert json.loads(sent[1]) == {"type": "text", "text": BLOCK}
    assert not request.in_tool_loop


def test_in_a_tool_loop_the_block_stays_in_the_message_that_began_it() -> None:
    """Everything up to the last tool result is the same in the next request of the loop."""
    first, second = request_of(USER, CALL, RESULTS), request_of(USER, CALL, RESULTS, CALL, RESULTS)
    sent = sent_messages(second.encode(model="m", block=BLOCK))

    assert sent[:3] == sent_messages(first.encode(model="m", block=BLOCK))
    assert b"Rex is a dog." in sent[0]
    assert first.anchor_hash() == second.anchor_hash() is not None
    assert first.in_tool_loop
    assert second.in_tool_loop


def test_moving_cache_marks_do_not_move_the_anchor() -> None:
    """Agents mark the last messages of every request anew and turn strings into blocks for that."""
    plain = parse({"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"})
    mark = {"cache_control": {"type": "ephemeral"}}
    marked = parse({"role": "user", "content": [{**mark, "text": "hi", "type": "text"}]})
    other = parse({"role": "user", "content": [{**mark, "text": "ho", "type": "text"}]})

    assert plain.anchor_hash() == marked.anchor_hash() != other.anchor_hash()


def test_the_anchor_hash_covers_the_messages_up_to_the_anchor() -> None:
    """A changed prefix or another anchor gives another hash; where one message ends matters too."""
    hashes = [
        request_of(USER).anchor_hash(),
        request_of(ASSISTANT, USER).anchor_hash(),
        request_of(USER, USER).anchor_hash(),
        request_of(USER, ASSISTANT, USER).anchor_hash(),
    ]

    assert len(set(hashes)) == 4
    assert request_of(ASSISTANT).anchor_hash() is None
    assert request_of(RESULTS).anchor_hash() is None


def test_without_a_user_message_the_tail_takes_no_block() -> None:
    """There is nothing to ask about, so nothing is injected."""
    for request in (request_of(ASSISTANT), request_of(RESULTS)):
        assert BLOCK.split("\n")[1].encode() not in request.encode(model="m", block=BLOCK)


def test_instructions_among_the_messages_are_no_turn_and_no_tool_loop() -> None:
    """The API takes `role: system` after a user turn."""
    system = b'{"role":"system","content":"From now on in French."}'
    request = request_of(USER, system)

    assert request.turns() == [Turn(role="user", text="Café or té?")]
    assert not request.in_tool_loop
    assert sent_messages(request.encode(model="m", block=BLOCK))[1] == system


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        (b"", json.dumps(BLOCK).encode()),
        (b',"system":null', json.dumps(BLOCK).encode()),
        (b',"system":""', json.dumps(BLOCK).encode()),
        (b',"system":"Be \\u0062rief."', json.dumps(f"{BLOCK}\n\n").encode()[:-1] + b'Be \\u0062rief."'),
        (
            b',"system":[ {"type":"text","text":"A","cache_control":{"type":"ephemeral"}}]',
            b'[{"type":"text","text":'
            + json.dumps(BLOCK).encode()
            + b'}, {"type":"text","text":"A","cache_control":{"type":"ephemeral"}}]',
        ),
    ],
)
def test_system_injection_puts_the_block_before_the_system_prompt(system: bytes, expected: bytes) -> None:
    """As the hosted product does; the messages are untouched."""
    body = request_of(USER, more=system).encode(model="m", block=BLOCK, injection="system")

    assert split_object(body)["system"] == expected
    assert sent_messages(body) == [USER]


def test_own_fields_are_read_and_not_sent() -> None:
    """Anthropic answers 400 to fields it does not know."""
    own: dict[str, Any] = dict.fromkeys(OPTION_FIELDS, "x") | {"context_limit": 7, "store_input": False}
    request = parse({"role": "user", "content": "hi", "memory": False}, **own, metadata={"user_id": "u"}, stream=True)

    assert request.options == own
    assert request.stream
    assert json.loads(request.encode(model="m")) == {
        "model": "m",
        "max_tokens": 9,
        "messages": [{"role": "user", "content": "hi"}],
        "metadata": {"user_id": "u"},
        "stream": True,
    }


def test_turns_are_what_users_and_assistants_say() -> None:
    """No tool traffic or thinking, nor what servers put in; attachments as placeholders; the do-not-store mark."""
    request = parse(
        {"role": "user", "content": "one", "memory": False},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "s"},
                {"type": "redacted_thinking", "data": "x"},
                {"type": "text", "text": "two"},
                {"type": "server_tool_use", "id": "1", "name": "web_search", "input": {}},
                {"type": "web_search_tool_result", "tool_use_id": "1", "content": []},
                {"type": "text", "text": "three"},
                {"type": "tool_use", "id": "2", "name": "f", "input": {}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "2", "content": "42"}]},
        {
            "role": "user",
            "content": [
                {"type": "image", "source": {}},
                {"type": "document", "source": {}},
                {"type": "text", "text": "look"},
                {"type": "x_new"},
                {"type": 7},
            ],
        },
        {"role": "user", "content": "  "},
        {"role": "assistant", "content": []},
    )

    assert request.turns() == [
        Turn(role="user", text="one", remember=False),
        Turn(role="assistant", text="two\nthree"),
        Turn(role="user", text="[image]\n[file]\nlook"),
    ]


def test_lone_surrogates_pass_and_read_as_replacement_characters() -> None:
    """The provider gets the client's bytes; memory gets text that can be stored."""
    message = b'{"role":"user","content":[{"type":"text","text":"a\\ud800b"}]}'
    request = request_of(message)

    assert request.turns() == [Turn(role="user", text="a\ufffdb")]
    assert sent_messages(request.encode(model="m")) == [message]
    assert b"a\\ud800b" in request.encode(model="m", block=BLOCK)
    assert request.anchor_hash() is not None


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", None),
        (b"[]", None),
        (b'{"max_tokens":1,"messages":[{"role":"user","content":"x"}]}', "model"),
        (b'{"model":"m","max_tokens":1}', "messages"),
        (b'{"model":"m","max_tokens":1,"messages":[]}', "messages"),
        (b'{"model":"m","max_tokens":1,"messages":["x"]}', "messages[0]"),
        (b'{"model":"m","max_tokens":1,"messages":[{"content":"x"}]}', "messages[0].role"),
        (b'{"model":"m","max_tokens":1,"messages":[{"role":"user","content":7}]}', "messages[0].content"),
        (b'{"model":"m","messages":[{"role":"user","content":"x"}]}', "max_tokens"),
        (b'{"model":"m","max_tokens":null,"messages":[{"role":"user","content":"x"}]}', "max_tokens"),
        (b'{"model":"m","max_tokens":"9","messages":[{"role":"user","content":"x"}]}', "max_tokens"),
        (b'{"model":"m","max_tokens":true,"messages":[{"role":"user","content":"x"}]}', "max_tokens"),
        (b'{"model":"m","max_tokens":1,"stream":1,"messages":[{"role":"user","content":"x"}]}', "stream"),
    ],
)
def test_bad_requests_name_their_field(body: bytes, field: str | None) -> None:
    """Never a crash, never a guess."""
    with pytest.raises(InvalidRequest) as caught:
        ANTHROPIC_MESSAGES.parse_request(body)

    assert caught.value.field == field


def test_counting_tokens_needs_no_limit() -> None:
    """`/v1/messages/count_tokens` takes the same body without `max_tokens`."""
    body = b'{"model":"m","messages":[{"role":"user","content":"x"}]}'

    assert ANTHROPIC_MESSAGES.parse_request(body, needs_max_tokens=False).model == "m"


_JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), st.lists, max_leaves=3)
_BLOCKS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["text", "tool_result", "tool_use", "image", "x"])}, optional={"text": _JSON}
    )
    | _JSON,
    max_size=4,
)
_MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system"])},
    optional={"content": st.none() | st.text(max_size=20) | _BLOCKS, "x": _JSON},
)


@settings(max_examples=40)
@given(st.lists(_MESSAGES, min_size=1, max_size=6), st.booleans())
def test_injection_changes_one_message_only(messages: list[dict[str, Any]], ascii_only: bool) -> None:
    """Whatever the conversation, taking the block out again gives the request back."""
    body = json.dumps({"model": "m", "max_tokens": 9, "messages": messages}, ensure_ascii=ascii_only).encode()
    request = ANTHROPIC_MESSAGES.parse_request(body)
    plain = sent_messages(request.encode(model="m"))
    sent = sent_messages(request.encode(model="m", block=BLOCK))
    changed = [index for index, raw in enumerate(sent) if raw != plain[index]]

    assert plain == split_array(split_object(body)["messages"])
    assert len(changed) == (request.anchor_hash() is not None)
    for index in changed:
        before, after = json.loads(plain[index]), json.loads(sent[index])
        if isinstance(before["content"], str):
            assert after["content"] == f"{BLOCK}\n\n{before['content']}"
        else:
            after["content"].remove({"type": "text", "text": BLOCK})
            assert after["content"] == before["content"]
    assert all(turn.text.strip() for turn in request.turns())


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (402, "billing_error"),
        (403, "permission_error"),
        (404, "not_found_error"),
        (405, "invalid_request_error"),
        (409, "conflict_error"),
        (413, "request_too_large"),
        (429, "rate_limit_error"),
        (500, "api_error"),
        (502, "api_error"),
        (503, "overloaded_error"),
        (504, "timeout_error"),
        (529, "overloaded_error"),
    ],
)
def test_error_bodies_have_the_shape_of_anthropic(status: int, kind: str) -> None:
    """SDKs read `error.type` and `error.message`."""
    error = {"type": "error", "error": {"type": kind, "message": "No."}}

    assert json.loads(ANTHROPIC_MESSAGES.error_body("No.", status=status, code="slug", field="model")) == error
    with_id = ANTHROPIC_MESSAGES.error_body("No.", status=status, code="slug", request_id="req_1")
    assert json.loads(with_id) == {**error, "request_id": "req_1"}


_SENT = claude_event("content_block_delta", index=0, delta={"type": "text_delta", "text": "Grüße\n"})


@pytest.mark.parametrize("length", range(len(_SENT) + 1))
def test_an_error_after_any_part_of_an_event_is_one(length: int) -> None:
    """The half event in the client's hands becomes the error itself, or is ended before it."""
    splitter = EventSplitter(event_bytes_max=10_000)
    before = splitter.feed(_SENT + _SENT[:length])
    ending = ANTHROPIC_MESSAGES.error_event("It broke.", status=502, code="cut", open_line=splitter.open_line())
    after = splitter.feed(ending)

    assert [event.name for event in before] in (["content_block_delta"], ["content_block_delta"] * 2)
    assert [event.name for event in after][-1:] == ["error"]
    assert all(json.loads(event.data) for event in after)
    last = json.loads(after[-1].data)
    assert last["type"] == "error"
    assert last["error"] == {"type": "api_error", "message": "It broke."}
    assert splitter.open_line() is None


def test_the_collector_takes_the_error_for_a_failure() -> None:
    """A relay in front of another one hears what happened."""
    collector = request_of(USER).collector(text_chars_max=10)
    splitter = request_of(USER).splitter(event_bytes_max=1000)
    signals = [
        collector.feed(event) for event in splitter.feed(ANTHROPIC_MESSAGES.error_event("x", status=500, code="c"))
    ]

    assert signals == [Signal.FAILURE]
