"""Our translation to and from Anthropic Messages says the same as LiteLLM's, which nobody here wrote.

Both translate the same requests and replies. Where they differ, a table says in which fields and why; a difference that
is not in it fails, and so does one that is in it and gone.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from models.errors import InvalidRequest
from router.providers.messages_translation import MessagesTranslation
from tests.clients.running import command_of
from tests.patience import PATIENCE_S

SONNET = "claude-sonnet-4-5"
OPUS = "claude-opus-4-6"
HI: Any = {"role": "user", "content": "hi"}
BRIEF: Any = {"role": "system", "content": "Be brief."}
MARK: Any = {"cache_control": {"type": "ephemeral"}}
SCHEMA: Any = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
TOOL: Any = {"type": "function", "function": {"name": "weather", "description": "Tells it.", "parameters": SCHEMA}}
STRICT: Any = {"type": "function", "function": {**TOOL["function"], "strict": True}}
BARE: Any = {"type": "function", "function": {"name": "now"}}
JSON_SCHEMA: Any = {"type": "json_schema", "json_schema": {"name": "place", "schema": SCHEMA}}
PDF: Any = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AAAA"}}
THINKING: Any = {"type": "thinking", "thinking": "Which one?", "signature": "c2ln"}


def request(*messages: Any, model: str = SONNET, **fields: Any) -> dict[str, Any]:
    return {"model": model, "messages": list(messages or (HI,)), **fields}


def text(words: str, **fields: Any) -> dict[str, Any]:
    return {"type": "text", "text": words, **fields}


def image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def user(*parts: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(parts)}


def said(content: str | None, *cities: str, **fields: Any) -> dict[str, Any]:
    """The assistant's turn; it asks for the weather in these cities."""
    calls = [
        {"id": f"call_{city}", "type": "function", "function": {"name": "weather", "arguments": f'{{"city":"{city}"}}'}}
        for city in cities
    ]
    return {"role": "assistant", "content": content, **({"tool_calls": calls} if calls else {}), **fields}


def told(city: str, content: Any) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": f"call_{city}", "content": content}


LOOP = (HI, said(None, "Rome", "Oslo"), told("Rome", "sun"), told("Oslo", "snow"))

REQUESTS: dict[str, dict[str, Any]] = {
    "plain": request(),
    "older model": request(model="claude-3-5-haiku-20241022"),
    "system": request(BRIEF, HI),
    "two systems": request(BRIEF, {"role": "system", "content": "Be kind."}, HI),
    "developer": request({"role": "developer", "content": "Be brief."}, HI),
    "late system": request(HI, said("hello"), BRIEF, HI),
    "parts": request(HI, said("hello"), user(text("a"), text("b"))),
    "turns of one role": request(HI, HI, said("x"), said("y"), HI),
    "max_tokens": request(max_tokens=77),
    "max_completion_tokens": request(max_completion_tokens=77),
    "stop": request(stop="END"),
    "stops": request(stop=["END", "STOP"]),
    "blank stop": request(stop=["END", "\n"]),
    "temperature": request(temperature=0.5),
    "temperature above 1": request(temperature=1.5),
    "temperature for a model without": request(model="claude-opus-4-7", temperature=0.5),
    "top_p": request(top_p=0.9),
    "temperature and top_p": request(temperature=0.5, top_p=0.9),
    "user": request(user="someone"),
    "metadata": request(metadata={"user_id": "someone"}),
    "two choices": request(n=2),
    "tools": request(tools=[TOOL]),
    "strict tool": request(tools=[STRICT]),
    "tool without parameters": request(tools=[BARE]),
    "choice auto": request(tools=[TOOL], tool_choice="auto"),
    "choice required": request(tools=[TOOL], tool_choice="required"),
    "choice none": request(tools=[TOOL], tool_choice="none"),
    "choice named": request(tools=[TOOL], tool_choice={"type": "function", "function": {"name": "weather"}}),
    "not parallel": request(tools=[TOOL], parallel_tool_calls=False),
    "required, not parallel": request(tools=[TOOL], tool_choice="required", parallel_tool_calls=False),
    "parallel calls": request(*LOOP, tools=[TOOL]),
    "parallel calls, then a question": request(*LOOP, HI, tools=[TOOL]),
    "call beside text": request(HI, said("I look.", "Rome"), told("Rome", "sun"), tools=[TOOL]),
    "calls without tools": request(*LOOP),
    "result in parts": request(HI, said(None, "Rome"), told("Rome", [text("sun"), text("rain")]), tools=[TOOL]),
    "image data": request(user(text("What?"), image("data:image/png;base64,AAAA"))),
    "image address": request(user(image("https://example.org/a.png"), text("What?"))),
    "pdf": request(user(text("What?"), PDF)),
    "json_schema": request(response_format=JSON_SCHEMA),
    "json_schema for an older model": request(model="claude-sonnet-4-20250514", response_format=JSON_SCHEMA),
    "json_object": request(response_format={"type": "json_object"}),
    "effort": request(model=OPUS, reasoning_effort="medium"),
    "effort for a model without": request(reasoning_effort="medium"),
    "cached system": request({"role": "system", "content": [text("Be brief.", **MARK)]}, HI),
    "cached text": request(user(text("a", **MARK), text("b"))),
    "cached tool": request(tools=[{**TOOL, **MARK}]),
    "thinking": request(thinking={"type": "enabled", "budget_tokens": 2000}, max_tokens=4000),
    "thinking handed back": request(
        HI, said("Rome.", "Rome", thinking_blocks=[THINKING]), told("Rome", "sun"), model=OPUS, tools=[TOOL]
    ),
}

REFUSED = "(refused)"

DIFFERENCES: dict[str, tuple[set[str], str]] = {
    "developer": ({REFUSED}, "theirs refuses OpenAI's newer name of the system role"),
    "late system": ({"system", "messages.2.content"}, "theirs makes it the user's words, ours keeps it an instruction"),
    "blank stop": ({"stop_sequences"}, "Anthropic refuses blank stop sequences, ours leaves them out"),
    "temperature above 1": ({"temperature"}, "Anthropic's scale ends at 1, ours stops there"),
    "temperature for a model without": ({REFUSED}, "theirs refuses it, ours leaves it out"),
    "temperature and top_p": ({"top_p"}, "Anthropic refuses both together from 4.1 on, ours keeps the first"),
    "strict tool": ({"tools.0.strict"}, "theirs drops what Anthropic knows since 4.5"),
    "calls without tools": (
        {"tools.0.name", "tools.0.description", "tool_choice"},
        "theirs defines a dummy that can be called, ours the tools of the calls and none to call",
    ),
    "pdf": ({"messages.0.content.1.title"}, "theirs drops the file's name"),
    "json_schema for an older model": ({"system", "tools", "tool_choice"}, "theirs forces a made-up tool, ours asks"),
    "json_object": ({"system"}, "theirs asks for no JSON at all"),
    "effort for a model without": ({"thinking"}, "theirs makes up a token budget, ours leaves effort out"),
}


def events(*blocks: tuple[dict[str, Any], list[dict[str, Any]]], reason: str) -> list[dict[str, Any]]:
    """A stream of Anthropic's with these blocks: how each starts, and what is added to it."""
    usage = {"input_tokens": 11, "output_tokens": 1}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": SONNET, "content": [], "usage": usage}
    listed: list[dict[str, Any]] = [{"type": "message_start", "message": head}]
    for index, (start, deltas) in enumerate(blocks):
        listed.append({"type": "content_block_start", "index": index, "content_block": start})
        listed += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        listed.append({"type": "content_block_stop", "index": index})
    end = {"stop_reason": reason, "stop_sequence": None}
    return [*listed, {"type": "message_delta", "delta": end, "usage": {"output_tokens": 7}}, {"type": "message_stop"}]


def called(city: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    pieces = ["", '{"ci', f'ty": "{city}', '"}']
    start = {"type": "tool_use", "id": f"toolu_{city}", "name": "weather", "input": {}}
    return start, [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]


def written(*pieces: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    return text(""), [{"type": "text_delta", "text": piece} for piece in pieces]


THOUGHT = (
    {"type": "thinking", "thinking": "", "signature": ""},
    [
        {"type": "thinking_delta", "thinking": "Which "},
        {"type": "thinking_delta", "thinking": "one?"},
        {"type": "signature_delta", "signature": "c2ln"},
    ],
)
STREAMS = {
    "text": events(written("Hel", "lo"), reason="end_turn"),
    "cut short": events(written("Hel"), reason="max_tokens"),
    "parallel calls": events(written("I ", "look."), called("Rome"), called("Oslo"), reason="tool_use"),
    "thinking, then a call": events(THOUGHT, called("Rome"), reason="tool_use"),
}


def whole_reply(content: list[dict[str, Any]], reason: str) -> dict[str, Any]:
    usage = {"input_tokens": 11, "output_tokens": 7}
    head = {"id": "msg_1", "type": "message", "role": "assistant", "model": SONNET, "stop_sequence": None}
    return {**head, "content": content, "stop_reason": reason, "usage": usage}


ROME: Any = {"type": "tool_use", "id": "toolu_Rome", "name": "weather", "input": {"city": "Rome"}}
OSLO: Any = {"type": "tool_use", "id": "toolu_Oslo", "name": "weather", "input": {"city": "Oslo"}}
REPLIES = {
    "text": whole_reply([text("Hello")], "end_turn"),
    "stopped": whole_reply([text("Hello")], "stop_sequence"),
    "cut short": whole_reply([text("Hello")], "max_tokens"),
    "parallel calls": whole_reply([text("I look."), ROME, OSLO], "tool_use"),
    "thinking, then a call": whole_reply([THINKING, ROME], "tool_use"),
}


class Theirs(msgspec.Struct, frozen=True):
    """LiteLLM's translations by name, and what it reads from the chunks that our translator made."""

    requests: dict[str, dict[str, Any] | None]
    replies: dict[str, dict[str, Any]]
    streams: dict[str, dict[str, Any]]
    ours_streamed: dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Theirs:
    """All in one process: importing LiteLLM takes seconds. Its way into the network ends at a closed port."""
    asked = {
        "requests": list(REQUESTS.values()),
        "replies": list(REPLIES.values()),
        "streams": list(STREAMS.values()),
        "chunk_streams": [our_chunks(stream) for stream in STREAMS.values()],
    }
    home: Path = tmp_path_factory.mktemp("litellm")
    nowhere = "http://127.0.0.1:9"
    done = subprocess.run(
        command_of("litellm", "translate_litellm.py"),
        input=msgspec.json.encode(asked),
        env={"PATH": os.environ["PATH"], "HOME": str(home), "HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere},
        cwd=home,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    answers = msgspec.json.decode(done.stdout)
    return Theirs(
        requests=dict(zip(REQUESTS, answers["requests"], strict=True)),
        replies=dict(zip(REPLIES, answers["replies"], strict=True)),
        streams=dict(zip(STREAMS, answers["streams"], strict=True)),
        ours_streamed=dict(zip(STREAMS, answers["chunk_streams"], strict=True)),
    )


def translation(of: dict[str, Any]) -> MessagesTranslation:
    return MessagesTranslation(msgspec.json.encode(of), now_s=1_700_000_000)


def our_request(of: dict[str, Any]) -> dict[str, Any] | None:
    try:
        body: dict[str, Any] = msgspec.json.decode(translation(of).body)
    except InvalidRequest:
        return None
    return body


def our_chunks(stream: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What our translator makes of the stream, as a client reads it."""
    translator = translation(request(stream=True, stream_options={"include_usage": True})).stream()
    fed = [b"event: %b\ndata: %b\n\n" % (event["type"].encode(), msgspec.json.encode(event)) for event in stream]
    sent = b"".join(translator.feed(event) for event in fed) + translator.end()
    data = [line.removeprefix(b"data: ") for line in sent.splitlines() if line.startswith(b"data: ")]
    assert data.pop() == b"[DONE]"
    return [msgspec.json.decode(chunk) for chunk in data]


def comparable(body: dict[str, Any], *, of: dict[str, Any]) -> dict[str, Any]:
    """The body without choices that mean the same to Anthropic, or that are the translator's to make."""
    found = {name: value for name, value in body.items() if name != "json_mode"}  # LiteLLM's note to itself
    if not {"max_tokens", "max_completion_tokens"} & of.keys():
        del found["max_tokens"]  # Anthropic insists on one: each has a default of its own
    if "output_format" in found:  # what output_config.format was called in its beta
        found["output_config"] = {"format": found.pop("output_format")}
    if "system" in found:
        found["system"] = blocks_of(found["system"])
    found["messages"] = [{**message, "content": blocks_of(message["content"])} for message in found["messages"]]
    if "tools" in found:
        found["tools"] = [comparable_tool(tool) for tool in found["tools"]]
    return found


def blocks_of(content: Any) -> list[Any]:
    """A string is short for one text block, also within a tool's result."""
    if isinstance(content, str):
        return [text(content)]
    return [{**block, "content": blocks_of(block["content"])} if "content" in block else block for block in content]


def comparable_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """Tools are custom unless they say otherwise, and schemas without properties may list none."""
    schema = {name: value for name, value in tool["input_schema"].items() if (name, value) != ("properties", {})}
    return {"type": "custom", **tool, "input_schema": schema}


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[str]:
    """Where two values differ, as paths: the deepest that both have, lists of other length as a whole."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for name in sorted(ours.keys() | theirs.keys()):
            inner = f"{path}.{name}".removeprefix(".")
            if name in ours and name in theirs:
                yield from differences(ours[name], theirs[name], inner)
            else:
                yield inner
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (our, their) in enumerate(zip(ours, theirs, strict=True)):
            yield from differences(our, their, f"{path}.{index}")
    elif ours != theirs:
        yield path


@pytest.mark.parametrize("name", REQUESTS)
def test_a_request_is_translated_alike_but_for_known_differences(theirs: Theirs, name: str) -> None:
    ours, other = our_request(REQUESTS[name]), theirs.requests[name]
    known, reason = DIFFERENCES.get(name, (set(), ""))
    if ours is None or other is None:
        found = {REFUSED} if ours is not other else set()
    else:
        asked = REQUESTS[name]
        found = set(differences(comparable(ours, of=asked), comparable(other, of=asked)))
    assert found == known, (reason, ours, other)


def test_every_known_difference_is_of_a_request() -> None:
    assert DIFFERENCES.keys() <= REQUESTS.keys()


@pytest.mark.parametrize("name", STREAMS)
def test_a_streamed_reply_is_put_together_alike(theirs: Theirs, name: str) -> None:
    """LiteLLM reads the same from Anthropic's events as from the chunks that we make of them."""
    assert theirs.ours_streamed[name] == theirs.streams[name]


@pytest.mark.parametrize("name", REPLIES)
def test_a_whole_reply_is_translated_alike(theirs: Theirs, name: str) -> None:
    body = translation(request()).reply(msgspec.json.encode(REPLIES[name]), status=200)
    ours = msgspec.json.decode(body)
    (choice,), usage = ours["choices"], ours["usage"]
    message = choice["message"]
    functions = [(call["id"], call["function"]) for call in message.get("tool_calls") or ()]
    assert theirs.replies[name] == {
        "content": message["content"] or "",
        "reasoning": message.get("reasoning_content"),
        "thinking": message.get("thinking_blocks"),
        "calls": [[id_, function["name"], msgspec.json.decode(function["arguments"])] for id_, function in functions],
        "finish_reason": choice["finish_reason"],
        "usage": [usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]],
    }
