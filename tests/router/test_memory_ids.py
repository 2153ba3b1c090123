"""`X-Memory-Ids`: which memories a request was given."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.memory import Memory
from models.messages import Hit
from models.packing import Piece
from router.memory_ids import CHARACTERS_MAX, ids_header, ids_of
from tests.fakes.provider import Script, open_dead_provider
from tests.router.test_wire_formats import DOG, QUESTION, Dialect, every_dialect, open_pair, script
from tests.running import assistant, open_server, settings_for, user


def memory(seq: int) -> Memory:
    return Memory(seq=seq, role="user", content="x", timestamp_ms=0, stored_ms=0, source="ingest")


def test_what_was_found_comes_first_and_what_stands_beside_it_last() -> None:
    hits = [Hit(memory=memory(seq), matched="x", score=0.5) for seq in (7, 3)]
    entries = [
        tuple(Piece(memory=memory(seq), text="x", is_hit=seq in (3, 7)) for seq in (2, 3)),
        (Piece(memory(7), "x"),),
    ]
    assert ids_of(hits, entries) == ("mem_7", "mem_3", "mem_2")


@given(st.integers(0, 1_000), st.integers(0, 10**9))
def test_the_header_is_bounded_and_says_how_many_are_left_out(count: int, first: int) -> None:
    ids = [f"mem_{first + number}" for number in range(count)]
    header = ids_header(ids)
    assert len(header) <= CHARACTERS_MAX
    listed = header.split(",") if header else []
    left_out = int(listed.pop()) if listed and listed[-1].startswith("+") else 0
    assert listed == ids[: len(listed)]
    assert len(listed) + left_out == count
    assert left_out == 0 or len(header) > CHARACTERS_MAX - 30


@every_dialect
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_every_format_says_which_memories_the_model_was_given(
    tmp_path: Path, dialect: Dialect, stream: bool
) -> None:
    """The ids are those of a search; none before anything is known."""
    path, body = dialect.stream_path if stream else dialect.path, dialect.request(stream=stream)
    async with open_pair(tmp_path, dialect.provider_format) as (server, provider):
        for _ in range(3):
            provider.enqueue(script(dialect, stream=stream))
        empty = await server.post(path, body, headers={"x-session-id": "elsewhere"})
        await server.ingest(DOG)
        (found,) = [item for item in await server.search("dog", limit=100) if item["content"] == DOG]
        given_one = await server.post(path, body)
        off = await server.post(path, {**body, "memory_mode": "off"})

    assert empty.headers["x-memory-ids"] == ""
    assert given_one.headers["x-memory-ids"].split(",")[0] == found["id"]
    assert off.headers["x-memory-ids"] == ""


async def test_prepare_says_it_in_its_body_and_its_header(tmp_path: Path) -> None:
    """Also of the brief answer that makes a question understood, which nobody found."""
    async with open_server(tmp_path / "data") as server:
        messages = [user("Shall we call the dog Rex?"), assistant("From Monday on.")]
        assert (await server.post("/v1/memory/ingest", {"messages": messages})).status_code == 202
        await server.wait_embedded()
        answer = await server.post("/v1/memory/prepare", {"messages": [user("Who is called Rex, the dog?")]})
        body = answer.json()
        nothing = await server.post("/v1/memory/prepare", {"messages": [user(QUESTION)], "memory_mode": "off"})

    assert "The assistant then: From Monday on." in body["context"]
    assert body["memory_ids"] == ["mem_1", "mem_2"]
    assert answer.headers["x-memory-ids"] == "mem_1,mem_2"
    assert (nothing.json()["memory_ids"], nothing.headers["x-memory-ids"]) == ([], "")


async def test_a_failed_call_says_it_too(tmp_path: Path) -> None:
    """The provider may have seen them, whatever came of it: its own errors, and ours in its place."""
    async with open_dead_provider() as dead, open_server(tmp_path / "data", settings_for(dead)) as server:
        await server.ingest(DOG)
        answer = await server.chat(QUESTION)
        assert (answer.status_code, answer.headers["x-memory-ids"]) == (502, "mem_1")


async def test_the_turns_of_a_tool_loop_name_the_same_memories(tmp_path: Path) -> None:
    """Their block comes from the cache."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    asked = [user(QUESTION)]
    answered = [
        *asked,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "1"},
    ]
    async with open_pair(tmp_path, "openai") as (server, provider):
        await server.ingest(DOG)
        for _ in range(2):
            provider.enqueue(Script(body=msgspec.json.encode({"choices": []})))
        first = await server.chat(*asked, model="fake/m")
        second = await server.chat(*answered, model="fake/m")
    assert first.headers["x-memory-ids"] == second.headers["x-memory-ids"] == "mem_1"


async def test_a_provider_cannot_forge_it(tmp_path: Path) -> None:
    """A router behind this one may send the same header."""
    async with open_pair(tmp_path, "openai") as (server, provider):
        provider.enqueue(Script(body=b"{}", headers=[("x-memory-ids", "mem_666")]))
        answer = await server.chat(QUESTION, model="fake/m")
    assert answer.headers.get_list("x-memory-ids") == [""]
