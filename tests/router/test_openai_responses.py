"""Responses: OpenAI's own options stay, items nobody asked to change keep their bytes, and errors reach the SDK."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRequest
from router.providers.base import Turn
from router.providers.json_bytes import split_array, split_object
from router.providers.openai_responses import OPENAI_RESPONSES, ResponsesRequest
from router.providers.request_parts import OPTION_FIELDS
from router.providers.responses_reply import ResponsesSplitter

BLOCK = "<memory_context>\nRex is a dog.\n</memory_context>"
USER = b'{"role": "user",  "content": "Caf\\u00e9 or t\xc3\xa9?", "x_vendor": 1.50}'
TYPED = b'{"type":"message","role":"user","content":[ {"type":"input_text","text":"Which?"} ]}'
SYSTEM = b'{ "content":"Be brief.","role":"developer" }'
CALL = b'{"type":"function_call","call_id":"c1","name":"f","arguments":"{\\"a\\": 1}"}'
RESULT = b'{"type":"function_call_output","call_id":"c1","output":"42"}'
REASONING = b'{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"AA=="}'
REFERENCE = b'{"id":"msg_9"}'


def parse(**body: Any) -> ResponsesRequest:
    return OPENAI_RESPONSES.parse_request(json.dumps({"model": "m", "input": "hi", **body}).encode())


def request_of(*items: bytes, more: bytes = b"") -> ResponsesRequest:
    return OPENAI_RESPONSES.parse_request(b'{"model":"openai/m","input":[' + b",".join(items) + b"]" + more + b"}")


def sent_items(body: bytes) -> list[bytes]:
    return split_array(split_object(body)["input"])


# --- requests ---------------------------------------------------------------------------------------------------------


def test_without_memory_only_the_model_changes() -> None:
    """Items of every kind and all of OpenAI's options leave as they came; `store` is OpenAI's and no option of ours."""
    items = (SYSTEM, USER, REASONING, CALL, RESULT, REFERENCE, b'{"type":"x_new","n":1e2}')
    more = b',"store":false,"previous_response_id":"resp_1","conversation":{"id":"c"},"background":true,"metadata":{}'
    request = request_of(*items, more=more)

    assert request.encode(model="m-2") == b'{"model":"m-2","input":[' + b",".join(items) + b"]" + more + b"}"
    assert request.options == {}


def test_the_block_goes_in_front_of_a_string_input() -> None:
    """Spliced into the string, whose own bytes stay."""
    request = OPENAI_RESPONSES.parse_request(b'{"input":"Caf\\u00e9?","model":"m"}')
    sent = request.encode(model="m", block=BLOCK)

    assert json.loads(sent) == {"input": f"{BLOCK}\n\nCafé?", "model": "m"}
    assert b"Caf\\u00e9?" in sent
    assert request.turns() == [Turn(role="user", text="Café?")]
    assert not request.in_tool_loop


def test_the_block_becomes_the_first_text_of_the_last_user_message() -> None:
    """In a string by splicing, among parts as an `input_text` of its own; no other item changes."""
    request = request_of(USER, SYSTEM, TYPED)
    before, after = sent_items(request.encode(model="m")), sent_items(request.encode(model="m", block=BLOCK))
    in_string = sent_items(request_of(SYSTEM, USER).encode(model="m", block=BLOCK))[1]

    assert after[:2] == before[:2] == [USER, SYSTEM]
    assert json.loads(after[2])["content"] == [
        {"type": "input_text", "text": BLOCK},
        {"type": "input_text", "text": "Which?"},
    ]
    assert json.loads(in_string) == {"role": "user", "content": f"{BLOCK}\n\nCafé or té?", "x_vendor": 1.5}


def test_in_a_tool_loop_the_block_stays_in_the_message_that_began_it() -> None:
    """Everything up to the last tool result is the same in the next request of the loop."""
    first = request_of(SYSTEM, USER, REASONING, CALL, RESULT)
    second = request_of(SYSTEM, USER, REASONING, CALL, RESULT, REASONING, CALL, RESULT)

    assert sent_items(second.encode(model="m", block=BLOCK))[:5] == sent_items(first.encode(model="m", block=BLOCK))
    assert first.in_tool_loop
    assert not request_of(SYSTEM, USER).in_tool_loop
    assert first.anchor_hash() == second.anchor_hash() is not None


def test_tool_results_alone_take_no_block() -> None:
    """With `previous_response_id` the message that memory went into is with the provider."""
    request = request_of(RESULT, more=b',"previous_response_id":"resp_1"')

    assert request.anchor_hash() is None
    assert not request.in_tool_loop
    assert request.encode(model="m", block=BLOCK) == request.encode(model="m")


def test_a_request_may_have_no_input() -> None:
    """A stored prompt or a conversation stands in for it; the instructions can still take the block."""
    request = OPENAI_RESPONSES.parse_request(b'{"model":"m","prompt":{"id":"pmpt_1"},"input":null}')

    assert (request.turns(), request.anchor_hash(), request.in_tool_loop) == ([], None, False)
    assert request.encode(model="m", block=BLOCK) == b'{"model":"m","prompt":{"id":"pmpt_1"},"input":null}'


def test_the_anchor_hash_covers_the_items_up_to_the_anchor() -> None:
    """A changed prefix, another anchor or a string gives another hash; an empty message is no anchor."""
    hashes = [
        request_of(USER).anchor_hash(),
        request_of(SYSTEM, USER).anchor_hash(),
        request_of(REFERENCE, USER).anchor_hash(),
        request_of(USER, USER).anchor_hash(),
        parse().anchor_hash(),
    ]

    assert len(set(hashes)) == 5
    assert request_of(SYSTEM, b'{"role":"user","content":[]}').anchor_hash() is None
    assert parse(input="").anchor_hash() is None


@pytest.mark.parametrize(
    ("more", "instructions"),
    [
        (b"", BLOCK),
        (b',"instructions":null', BLOCK),
        (b',"instructions":""', BLOCK),
        (b',"instructions":"Be brief."', f"{BLOCK}\n\nBe brief."),
        (b',"instructions":["odd"]', ["odd"]),
    ],
)
def test_system_injection_puts_the_block_before_the_instructions(more: bytes, instructions: Any) -> None:
    """They are added where there are none; the input does not change."""
    sent = request_of(SYSTEM, USER, more=more).encode(model="m", block=BLOCK, injection="system")

    assert json.loads(sent)["instructions"] == instructions
    assert sent_items(sent) == [SYSTEM, USER]


def test_own_fields_are_read_and_not_sent() -> None:
    """On the request and on its messages."""
    own: dict[str, Any] = dict.fromkeys(OPTION_FIELDS, "x") | {"session_id": 7, "memory": False}
    request = parse(**own, store=True, input=[{"role": "user", "content": "hi", "memory": False}])

    assert request.options == own
    assert request.turns() == [Turn(role="user", text="hi", remember=False)]
    assert json.loads(request.encode(model="m")) == {
        "model": "m",
        "input": [{"role": "user", "content": "hi"}],
        "store": True,
    }


def test_turns_are_what_users_and_assistants_say() -> None:
    """No instructions, tool traffic, reasoning or references; attachments as placeholders."""
    output = {"type": "output_text", "text": "two", "annotations": []}
    request = parse(
        instructions="Be kind.",
        input=[
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": "Be kind."},
            {"type": "message", "role": "user", "content": "one"},
            {"type": "reasoning", "id": "rs_1", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [output]},
            {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "no"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "42"}]},
            {"type": "item_reference", "id": "msg_2"},
            {"type": None, "id": "msg_3"},
            "a bare string",
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "look"},
                    {"type": "input_image", "image_url": "data:"},
                    {"type": "input_file", "file_id": "file_1"},
                    {"type": "input_audio", "input_audio": {}},
                ],
            },
            {"role": "user", "content": "  "},
        ],
    )

    assert request.turns() == [
        Turn(role="user", text="one"),
        Turn(role="assistant", text="two"),
        Turn(role="assistant", text="no"),
        Turn(role="user", text="look\n[image]\n[file]\n[audio]"),
    ]


def test_lone_surrogates_pass_and_read_as_replacement_characters() -> None:
    """The provider gets the client's bytes; memory gets text that can be stored."""
    request = OPENAI_RESPONSES.parse_request(b'{"model":"m","input":"a\\ud800b"}')

    assert request.turns() == [Turn(role="user", text="a\ufffdb")]
    assert request.encode(model="m") == b'{"model":"m","input":"a\\ud800b"}'
    assert b"a\\ud800b" in request.encode(model="m", block=BLOCK)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", None),
        (b"[]", None),
        (b'{"model":"m","input":"\xff"}', None),
        (b'{"input":"x"}', "model"),
        (b'{"model":7,"input":"x"}', "model"),
        (b'{"model":"m","input":7}', "input"),
        (b'{"model":"m","input":{"role":"user"}}', "input"),
        (b'{"model":"m","input":"x","stream":"yes"}', "stream"),
        (b'{"model":"m","input":[{"type":"message","content":"x"}]}', "input[0].role"),
        (b'{"model":"m","input":[{"role":"user","content":"x"},{"role":1}]}', "input[1].role"),
        (b'{"model":"m","input":[{"role":"user","content":7}]}', "input[0].content"),
        (b'{"model":"m","input":' + b"[" * 1000 + b"]" * 1000 + b"}", "body"),
    ],
)
def test_bad_requests_name_their_field(body: bytes, field: str | None) -> None:
    """Never a crash, never a guess."""
    with pytest.raises(InvalidRequest) as caught:
        OPENAI_RESPONSES.parse_request(body)

    assert caught.value.field == field


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
_PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["input_text", "output_text", "input_image", "x"]), "text": _JSON}
)
_MESSAGES = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant", "system", "developer"])},
    optional={
        "type": st.sampled_from(["message", None]),
        "content": st.none() | st.text(max_size=20) | st.lists(_PARTS, max_size=3),
        "x": _JSON,
    },
)
_ITEMS = _MESSAGES | st.fixed_dictionaries({"type": st.text(max_size=5)}, optional={"output": _JSON}) | _JSON
_INPUTS = st.text(max_size=20) | st.lists(_ITEMS, max_size=6)


@given(_INPUTS, st.sampled_from(["tail", "system"]), st.booleans())
def test_injection_changes_one_thing_only(value: Any, injection: Any, ascii_only: bool) -> None:
    """Whatever the input, taking the block out again gives the request back; what is refused is refused politely."""
    body = json.dumps({"model": "m", "input": value, "instructions": "i"}, ensure_ascii=ascii_only).encode()
    try:
        request = OPENAI_RESPONSES.parse_request(body)
    except InvalidRequest:
        return
    plain, sent = (
        json.loads(request.encode(model="m")),
        json.loads(request.encode(model="m", block=BLOCK, injection=injection)),
    )
    request.turns()

    assert plain == json.loads(body)
    if injection == "system":
        assert sent == {**plain, "instructions": f"{BLOCK}\n\ni"}
    elif request.anchor_hash() is None:
        assert sent == plain
    elif isinstance(value, str):
        assert sent["input"] == f"{BLOCK}\n\n{value}"
    else:
        [index] = [index for index, item in enumerate(sent["input"]) if item != value[index]]
        before, after = value[index], sent["input"][index]
        if isinstance(before["content"], str):
            assert after == {**before, "content": f"{BLOCK}\n\n{before['content']}"}
        else:
            assert after == {**before, "content": [{"type": "input_text", "text": BLOCK}, *before["content"]]}


@given(_JSON.map(json.dumps).map(str.encode) | st.binary(max_size=40))
def test_any_body_is_read_or_refused(body: bytes) -> None:
    """Nothing but InvalidRequest comes out, as a body and as an input."""
    for candidate in (body, b'{"model":"m","input":' + body + b"}"):
        try:
            request = OPENAI_RESPONSES.parse_request(candidate)
        except InvalidRequest:
            continue
        request.turns()
        request.encode(model="m", block=BLOCK)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_error_bodies_have_the_shape_of_openai() -> None:
    """SDKs read `error.code` and `error.type`."""
    body = OPENAI_RESPONSES.error_body("No.", status=404, code="slug", field="model")

    assert json.loads(body) == {
        "error": {"message": "No.", "type": "not_found_error", "param": "model", "code": "slug"},
    }


def event(kind: str, **members: Any) -> bytes:
    data = json.dumps({"type": kind, **members}, ensure_ascii=False)
    return f"event: {kind}\ndata: {data}\n\n".encode()


FIRST = event("response.output_text.delta", sequence_number=6, output_index=0, content_index=0, delta="before")
SECOND = event("response.output_text.delta", delta="Grüße\n", logprobs=[{"x": "\\"}], sequence_number=7, n=True)


def test_the_error_event_is_an_error_to_both_kinds_of_readers() -> None:
    """By its type to programs that read events, by its member to SDKs that look for one; its number is the next."""
    splitter = ResponsesSplitter(event_bytes_max=1000)
    splitter.feed(FIRST)
    sent = OPENAI_RESPONSES.error_event("No.", status=502, code="cut", open_line=splitter.open_line())
    name, data = sent.split(b"\n", 1)

    assert name == b"event: error"
    assert json.loads(data.removeprefix(b"data: ")) == {
        "type": "error",
        "code": "cut",
        "message": "No.",
        "param": None,
        "sequence_number": 7,
        "error": {"message": "No.", "type": "server_error", "param": None, "code": "cut"},
    }


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n", b"\r"])
def test_an_error_after_any_part_of_an_event_reaches_the_sdk(line_end: bytes) -> None:
    """Half lines and lone names are completed, so the SDK raises the error and no decoding error."""
    whole = SECOND.replace(b"\n", line_end)
    for length in range(len(whole)):
        splitter = ResponsesSplitter(event_bytes_max=1000)
        splitter.feed(FIRST.replace(b"\n", line_end))
        splitter.feed(whole[:length])
        sent = FIRST.replace(b"\n", line_end) + whole[:length]
        sent += OPENAI_RESPONSES.error_event("It broke.", status=502, code="cut", open_line=splitter.open_line())

        stream = _openai_stream(sent)
        assert next(stream).delta == "before"
        with pytest.raises(openai.APIError, match="It broke") as caught:
            list(stream)
        assert caught.value.code == "cut"


def test_a_half_event_becomes_the_error_event() -> None:
    """Of a member given twice the last counts, so no reader takes it for a delta."""
    ending = OPENAI_RESPONSES.error_event("No.", status=502, code="cut", open_line=b'data: {"type":"x","delta":"Hel')

    assert json.loads(b'{"type":"x","delta":"Hel' + ending)["type"] == "error"
    assert ending.endswith(b"}\n\n")


def test_what_a_plain_splitter_says_is_understood_too() -> None:
    """Without a number to go on, it is 0; a missing blank line comes first."""
    assert b'"sequence_number":0' in OPENAI_RESPONSES.error_event("No.", status=502, code="cut")
    assert OPENAI_RESPONSES.error_event("No.", status=502, code="cut", open_line=b"").startswith(b"\n\nevent: error\n")


def _openai_stream(body: bytes) -> Any:
    """The OpenAI SDK's own reading of these bytes."""
    import httpx2  # the SDK's HTTP client

    transport = httpx2.MockTransport(
        lambda _: httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=body)
    )
    client = openai.OpenAI(api_key="x", base_url="http://sdk.test/v1", http_client=httpx2.Client(transport=transport))
    return client.responses.create(model="m", input="x", stream=True)
