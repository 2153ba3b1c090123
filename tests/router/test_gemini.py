"""Gemini: bytes that nobody asked to change do not change; a broken stream ends with the error, in both framings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRequest
from router.providers.base import Turn
from router.providers.gemini import GeminiFormat, GeminiRequest
from router.providers.json_array import JsonArraySplitter
from router.providers.json_bytes import split_array, split_object
from router.providers.request_parts import OPTION_FIELDS
from router.sse import EventSplitter

BLOCK = "<memory_context>\nRex is a dog.\n</memory_context>"
WHOLE = GeminiFormat(model="gemini-3-flash")
SSE = GeminiFormat(model="gemini-3-flash", stream=True, sse=True)
ARRAY = GeminiFormat(model="gemini-3-flash", stream=True)

USER = b'{"role": "user",  "parts": [ {"text": "Caf\\u00e9 or t\xc3\xa9?", "x": 1.50} ]}'
MODEL = b'{"parts":[{"text":"Both","thoughtSignature":"AA\\/A="}],"role":"model"}'
CALL = b'{"role":"model","parts":[{"functionCall":{"name":"f","args":{"a":1.0}},"thoughtSignature":"QQ=="}]}'
RESULT = b'{"role":"user","parts":[{"functionResponse":{"name":"f","response":{"r":42}}}]}'


def parse(**body: Any) -> GeminiRequest:
    return WHOLE.parse_request(json.dumps({"contents": [{"parts": [{"text": "hi"}]}], **body}).encode())


def request_of(*contents: bytes, more: bytes = b"") -> GeminiRequest:
    return WHOLE.parse_request(b'{"contents":[' + b",".join(contents) + b"]" + more + b"}")


def sent_contents(body: bytes) -> list[bytes]:
    return split_array(split_object(body)["contents"])


# --- requests ---------------------------------------------------------------------------------------------------------


def test_without_memory_nothing_changes() -> None:
    """The model is in the URL; a `model` in the body, unknown members, signatures and numbers leave as they came."""
    more = b',"model":"models/x","generationConfig":{"temperature":1.0,  "x":1e2},"tools":[{"googleSearch":{}}]'
    request = request_of(USER, MODEL, CALL, RESULT, more=more)

    assert request.encode(model="other") == (
        b'{"contents":[' + b",".join([USER, MODEL, CALL, RESULT]) + b"]" + more + b"}"
    )
    assert (request.model, request.stream, request.options) == ("gemini-3-flash", False, {})
    assert SSE.parse_request(b'{"contents":[{}]}').stream


def test_the_block_becomes_the_first_text_of_the_last_user_content() -> None:
    """A part of its own; contents before it are byte-identical, and so are its other parts."""
    image = b'{"inlineData":{"mimeType":"image/png","data":"AA\\/A="}}'
    last = b'{"role":"user","parts":[' + image + b',{"text":"What is it?"}],"x":1.0}'
    sent = sent_contents(request_of(USER, MODEL, last).encode(model="m", block=BLOCK))
    parts = split_array(split_object(sent[2])["parts"])

    assert sent[:2] == [USER, MODEL]
    assert parts == [image, json.dumps({"text": BLOCK}, separators=(",", ":")).encode(), b'{"text":"What is it?"}']
    assert split_object(sent[2])["x"] == b"1.0"


@pytest.mark.parametrize(
    ("parts", "place"),
    [
        ([{"inlineData": {}}, {"fileData": {}}], 0),
        ([{"functionResponse": {}}, {"inline_data": {}}], 1),
        ([{"functionResponse": {}}, {"text": "Go on."}], 1),
        ([{"function_response": {}}, {"inlineData": {}}, {"text": "Go on."}], 2),
        ([{"text": None}, {"text": "a"}], 1),
    ],
)
def test_the_block_stands_behind_tool_results(parts: list[dict[str, Any]], place: int) -> None:
    """In front of the first text; without one, in front of the first part that is no tool result."""
    sent = parse(contents=[{"role": "user", "parts": parts}]).encode(model="m", block=BLOCK)

    assert json.loads(sent)["contents"][0]["parts"] == [*parts[:place], {"text": BLOCK}, *parts[place:]]


def test_in_a_tool_loop_the_block_stays_in_the_content_that_began_it() -> None:
    """Everything up to the last tool result is the same in the next request of the loop."""
    first, second = request_of(USER, CALL, RESULT), request_of(USER, CALL, RESULT, CALL, RESULT)

    assert sent_contents(second.encode(model="m", block=BLOCK))[:3] == sent_contents(
        first.encode(model="m", block=BLOCK)
    )
    assert first.in_tool_loop
    assert not request_of(MODEL, USER).in_tool_loop
    assert first.anchor_hash() == second.anchor_hash() is not None


def test_the_anchor_hash_covers_the_contents_up_to_the_anchor() -> None:
    """A changed prefix or another anchor gives another hash; without a user's words there is no anchor and no block."""
    hashes = [
        request_of(USER).anchor_hash(),
        request_of(MODEL, USER).anchor_hash(),
        request_of(USER, MODEL, USER).anchor_hash(),
    ]
    silent = request_of(MODEL, RESULT, b'{"role":"user","parts":[]}', b'{"role":"function","parts":[{"text":"x"}]}')

    assert len(set(hashes)) == 3
    assert silent.anchor_hash() is None
    assert silent.encode(model="m", block=BLOCK) == silent.encode(model="m")


def test_single_objects_stand_for_lists_of_one() -> None:
    """Google's parser takes them, and its own examples have them."""
    body = b'{"contents":{"parts":{"text":"hi"}},"system_instruction":{"parts":{"text":"Be brief."}}}'
    request = WHOLE.parse_request(body)
    tail = json.loads(request.encode(model="m", block=BLOCK))
    system = json.loads(request.encode(model="m", block=BLOCK, injection="system"))

    assert request.turns() == [Turn(role="user", text="hi")]
    assert request.encode(model="m") == body
    assert tail["contents"] == {"parts": [{"text": BLOCK}, {"text": "hi"}]}
    assert system["system_instruction"] == {"parts": [{"text": BLOCK}, {"text": "Be brief."}]}


@pytest.mark.parametrize(
    ("given_system", "sent"),
    [
        ({}, {"systemInstruction": {"parts": [{"text": BLOCK}]}}),
        ({"systemInstruction": None}, {"systemInstruction": {"parts": [{"text": BLOCK}]}}),
        ({"system_instruction": None}, {"systemInstruction": {"parts": [{"text": BLOCK}]}}),
        ({"systemInstruction": {"role": "x"}}, {"systemInstruction": {"role": "x", "parts": [{"text": BLOCK}]}}),
        (
            {"systemInstruction": {"parts": [{"text": "a"}, {"text": "b"}]}},
            {"systemInstruction": {"parts": [{"text": BLOCK}, {"text": "a"}, {"text": "b"}]}},
        ),
        (
            {"system_instruction": {"parts": [{"text": "a"}]}},
            {"system_instruction": {"parts": [{"text": BLOCK}, {"text": "a"}]}},
        ),
        ({"systemInstruction": "Be brief."}, {"systemInstruction": f"{BLOCK}\n\nBe brief."}),
        ({"systemInstruction": {"parts": 7}}, {"systemInstruction": {"parts": 7}}),
        ({"systemInstruction": 7}, {"systemInstruction": 7}),
    ],
)
def test_system_injection_puts_the_block_before_the_instruction(given_system: Any, sent: Any) -> None:
    """Under the name it came with; one is added where there is none, and an odd one is the provider's to refuse."""
    body = json.loads(parse(**given_system).encode(model="m", block=BLOCK, injection="system"))

    assert body == {"contents": [{"parts": [{"text": "hi"}]}], **sent}


def test_own_fields_are_read_and_not_sent() -> None:
    """On the request and on its contents."""
    own: dict[str, Any] = dict.fromkeys(OPTION_FIELDS, "x") | {"session_id": 7, "memory": False}
    request = parse(**own, contents=[{"parts": [{"text": "hi"}], "memory": False}])

    assert request.options == own
    assert request.turns() == [Turn(role="user", text="hi", remember=False)]
    assert json.loads(request.encode(model="m")) == {"contents": [{"parts": [{"text": "hi"}]}]}


def test_turns_are_what_users_and_models_say() -> None:
    """No thoughts, calls or results; a user's attachments as placeholders; a role that is missing is the user's."""
    request = parse(
        systemInstruction={"parts": [{"text": "Be brief."}]},
        contents=[
            {"parts": [{"text": "one"}, {"text": "more"}]},
            {"role": "model", "parts": [{"text": "hm", "thought": True}, {"text": "two", "thoughtSignature": "QQ=="}]},
            {"role": "user", "parts": [{"text": "look"}]},
            {"role": "model", "parts": [{"functionCall": {"name": "f"}}]},
            {"role": "user", "parts": [{"functionResponse": {"name": "f"}}]},
            {"role": "function", "parts": [{"text": "42"}]},
            {
                "role": "user",
                "parts": [
                    {"inlineData": {"mimeType": "image/png", "data": ""}},
                    {"inline_data": {"mime_type": "audio/wav", "data": ""}},
                    {"fileData": {"mimeType": "video/mp4", "fileUri": ""}},
                    {"fileData": {"fileUri": ""}},
                    {"file_data": {"mime_type": "application/pdf"}},
                    {"text": "here"},
                    {"x_new": {}},
                    "odd",
                ],
            },
            {"role": "user"},
        ],
    )

    assert request.turns() == [
        Turn(role="user", text="one\nmore"),
        Turn(role="assistant", text="two"),
        Turn(role="user", text="look"),
        Turn(role="user", text="[image]\n[audio]\n[video]\n[file]\n[file]\nhere"),
    ]


def test_model_contents_in_a_row_are_one_turn() -> None:
    """google-genai's chats send each chunk of a streamed reply back as a content: one reply, stored once."""
    chunk = {"role": "model", "parts": [{"text": "Hel"}]}
    request = parse(contents=[chunk, {"role": "model", "parts": [{"text": "lo"}, {"text": "."}], "memory": False}])

    assert request.turns() == [Turn(role="assistant", text="Hello.", remember=False)]


def test_lone_surrogates_pass_and_read_as_replacement_characters() -> None:
    """The provider gets the client's bytes; memory gets text that can be stored."""
    content = b'{"parts":[{"text":"a\\ud800b"}]}'
    request = request_of(content)

    assert request.turns() == [Turn(role="user", text="a\ufffdb")]
    assert sent_contents(request.encode(model="m")) == [content]
    assert b"a\\ud800b" in request.encode(model="m", block=BLOCK)


@pytest.mark.parametrize(
    ("config", "choices"),
    [
        (b"", 1),
        (b',"generationConfig":{"candidateCount":3}', 3),
        (b',"generation_config":{"candidate_count":2}', 2),
        (b',"generationConfig":{"candidateCount":"x"}', 1),
        (b',"generationConfig":[]', 1),
    ],
)
def test_the_number_of_candidates_is_read(config: bytes, choices: int) -> None:
    """A stream is complete when all of them are."""
    assert request_of(USER, more=config).choices == choices


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b"", None),
        (b"[]", None),
        (b'{"contents":"\xff"}', None),
        (b"{}", "contents"),
        (b'{"contents":[]}', "contents"),
        (b'{"contents":"hi"}', "contents"),
        (b'{"contents":["hi"]}', "contents[0]"),
        (b'{"contents":[{},{"role":7}]}', "contents[1].role"),
        (b'{"contents":[{"parts":"hi"}]}', "contents[0].parts"),
        (b'{"contents":' + b"[" * 1000 + b"]" * 1000 + b"}", "body"),
    ],
)
def test_bad_requests_name_their_field(body: bytes, field: str | None) -> None:
    """Never a crash, never a guess."""
    with pytest.raises(InvalidRequest) as caught:
        SSE.parse_request(body)

    assert caught.value.field == field


_NAMES = st.sampled_from(
    ["text", "thought", "inlineData", "functionResponse", "mimeType", "role", "parts", "memory", "x"]
)
_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_NAMES, inner, max_size=3),
    max_leaves=6,
)
_CONTENTS = st.fixed_dictionaries(
    {},
    optional={
        "role": st.sampled_from(["user", "model", "function", "", None]),
        "parts": st.lists(st.dictionaries(_NAMES, _JSON, max_size=3) | _JSON, max_size=4) | _JSON,
        "x": _JSON,
    },
)


@given(st.lists(_CONTENTS, max_size=5) | _CONTENTS | _JSON, st.sampled_from(["tail", "system"]), st.booleans())
def test_injection_changes_one_thing_only(contents: Any, injection: Any, ascii_only: bool) -> None:
    """Whatever the contents, taking the block out again gives the request back; else it is refused politely."""
    body = json.dumps({"contents": contents}, ensure_ascii=ascii_only).encode()
    try:
        request = SSE.parse_request(body)
    except InvalidRequest:
        return
    plain, sent = (
        json.loads(request.encode(model="m")),
        json.loads(request.encode(model="m", block=BLOCK, injection=injection)),
    )
    request.turns()
    before = [plain["contents"]] if isinstance(plain["contents"], dict) else plain["contents"]
    after = [sent["contents"]] if isinstance(sent["contents"], dict) else sent["contents"]

    if injection == "system":
        assert sent == {**plain, "systemInstruction": {"parts": [{"text": BLOCK}]}}
    elif request.anchor_hash() is None:
        assert sent == plain
    else:
        [index] = [index for index, content in enumerate(after) if content != before[index]]
        parts = [before[index]["parts"]] if isinstance(before[index]["parts"], dict) else before[index]["parts"]
        place = after[index]["parts"].index({"text": BLOCK})
        assert after[index]["parts"][:place] + after[index]["parts"][place + 1 :] == parts
        assert {**after[index], "parts": None} == {**before[index], "parts": None}


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "INVALID_ARGUMENT"),
        (401, "UNAUTHENTICATED"),
        (403, "PERMISSION_DENIED"),
        (404, "NOT_FOUND"),
        (413, "INVALID_ARGUMENT"),
        (429, "RESOURCE_EXHAUSTED"),
        (500, "INTERNAL"),
        (502, "UNAVAILABLE"),
        (503, "UNAVAILABLE"),
        (504, "DEADLINE_EXCEEDED"),
    ],
)
def test_error_bodies_have_the_shape_of_google(status: int, kind: str) -> None:
    """SDKs read `code` and `status`; our slug is the reason of an ErrorInfo."""
    error = json.loads(WHOLE.error_body("No.", status=status, code="model_not_found"))["error"]

    assert (error["code"], error["message"], error["status"]) == (status, "No.", kind)
    assert error["details"][0]["reason"] == "MODEL_NOT_FOUND"


def test_the_field_to_blame_is_a_field_violation() -> None:
    """As Google names them."""
    error = json.loads(WHOLE.error_body("No.", status=400, code="invalid_request", field="contents"))["error"]

    assert error["details"][1]["fieldViolations"] == [{"field": "contents", "description": "No."}]


def chunk(text: str) -> bytes:
    parts = [{"inlineData": {"mimeType": "image/png", "data": "QUJD"}}, {"text": text}]
    return json.dumps({"candidates": [{"content": {"parts": parts}}], "n": [True, 1.5]}, ensure_ascii=False).encode()


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n", b"\r"])
def test_an_error_after_any_part_of_an_event_is_an_event_of_its_own(line_end: bytes) -> None:
    """What google-genai needs: each event is one JSON text, and the error's first member is `error`.

    A half event becomes one that says nothing. No comments and no terminator: google-genai fails on both.
    """
    whole = b"data: " + chunk("Grüße \\") + line_end * 2
    for length in range(len(whole)):
        splitter = EventSplitter(event_bytes_max=1000)
        splitter.feed(whole + whole[:length])
        ending = SSE.error_event("It broke.", status=502, code="cut", open_line=splitter.open_line())
        events = [json.loads(data) for data in _genai_events(whole + whole[:length] + ending)]

        assert events[0] == json.loads(chunk("Grüße \\"))
        assert events[-1]["error"]["message"] == "It broke."
        assert list(events[-1]) == ["error"]
        for half in events[1:-1]:
            assert half["candidates"] == [{}] or half == events[0]
        assert len(events) <= 3


def test_an_error_in_an_array_is_its_last_element() -> None:
    """Wherever it broke, the client holds one JSON array."""
    whole = b"[" + chunk("a") + b"\n,\r\n" + chunk("Grüße \\")
    for length in range(len(whole)):
        splitter = JsonArraySplitter(event_bytes_max=1000)
        splitter.feed(whole[:length])
        ending = ARRAY.error_event("It broke.", status=502, code="cut", open_line=splitter.open_line())

        assert list(json.loads(whole[:length] + ending)[-1]) == ["error"]


def test_the_url_says_how_a_stream_is_split() -> None:
    """`alt=sse` or a JSON array, each with its media type."""
    body = b'{"contents":[{}]}'

    assert SSE.parse_request(body).stream_type == "text/event-stream"
    assert ARRAY.parse_request(body).stream_type == "application/json"
    assert isinstance(SSE.parse_request(body).splitter(event_bytes_max=10), EventSplitter)
    assert isinstance(ARRAY.parse_request(body).splitter(event_bytes_max=10), JsonArraySplitter)


def _genai_events(body: bytes) -> list[str]:
    """The events as google-genai 3.4 finds them: blank lines end `data: ` lines; any other line is a JSON text."""
    events: list[str] = []
    data: list[str] = []
    for line in body.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n"):
        if line.startswith("data: "):
            data.append(line.removeprefix("data: "))
        elif line:
            events.append(line)
        elif data:
            events.append("\n".join(data))
            data = []
    return events
