"""langchain-memoryrouter as its documentation shows it: clients, LangGraph nodes, tools, store."""

from __future__ import annotations

from typing import Any, TypedDict

import httpx
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_memoryrouter import (
    AsyncMemoryRouterClient,
    MemoryRouterClient,
    MemoryRouterStore,
    create_memory_tools,
    create_recall_node,
    create_retain_node,
)
from langgraph.graph import END, START, StateGraph
from scenes import HELLO, KEY, QUESTION, URL, WRONG_KEY, play, raises


class State(TypedDict, total=False):
    messages: list[Any]
    memory_context: str | None


def client() -> None:
    memory = MemoryRouterClient(KEY, base_url=f"{URL}/")
    accepted = memory.ingest(
        [{"role": "user", "content": "I play the cello."}, {"role": "assistant", "content": "Nice."}],
        session_id="music",
        model="gpt-hello",
        embeddings="some-model",
    )
    assert accepted["accepted"] is True
    found = memory.search("cello", limit=3, session_id="music")
    assert found["memories"][0]["content"] == "I play the cello."
    prepared = memory.prepare([{"role": "user", "content": QUESTION}], density="high", context_limit=5)
    assert "Rex" in prepared["context"]
    other = memory.prepare([{"role": "user", "content": QUESTION}], session_id="nothing-in-it")
    assert other["context"] is None


async def asynchronous() -> None:
    memory = AsyncMemoryRouterClient(KEY, base_url=URL)
    await memory.aingest([{"role": "user", "content": "I collect old maps."}], session_id="maps")
    assert (await memory.asearch("maps", session_id="maps"))["memories"][0]["content"] == "I collect old maps."
    assert "Rex" in (await memory.aprepare([{"role": "user", "content": QUESTION}]))["context"]


def graph() -> None:
    def answer(state: State) -> State:
        assert "Rex" in (state["memory_context"] or "")
        call = {"name": "get_weather", "args": {"city": "Lisbon"}, "id": "1"}
        talk = [AIMessage("", tool_calls=[call]), ToolMessage("sunny", tool_call_id="1"), AIMessage(HELLO)]
        return {"messages": [*state["messages"], *talk]}

    builder = StateGraph(State)
    builder.add_node("recall", create_recall_node(base_url=URL))
    builder.add_node("answer", answer)
    builder.add_node("retain", create_retain_node(base_url=URL, model="gpt-hello"))
    for one, other in ((START, "recall"), ("recall", "answer"), ("answer", "retain"), ("retain", END)):
        builder.add_edge(one, other)
    said: Any = {"messages": [SystemMessage("Be brief."), HumanMessage(QUESTION)]}
    compiled = builder.compile()
    config: Any = {"configurable": {"memory_key": KEY}}
    assert compiled.invoke(said, config)["messages"][-1].content == HELLO
    assert compiled.invoke(said, config)["messages"][-1].content == HELLO


def tools() -> None:
    retain, recall = create_memory_tools(KEY, base_url=URL)
    told = retain.invoke({"messages": [HumanMessage("My boat is called Nemo."), AIMessage("Noted.")]})
    assert told == "Retained 2 conversation message(s)."
    assert "My boat is called Nemo." in recall.invoke({"query": "boat", "limit": 5})
    assert recall.invoke({"query": "boat", "session_id": "nothing-in-it"}) == "No relevant memories found."


def store() -> None:
    """A lone user message has to be findable at once."""
    kept = MemoryRouterStore(KEY, base_url=URL, session_id="store")
    kept.mset([("favourite-tea", "oolong"), ("shoe-size", {"eu": 43})])
    assert kept.mget(["favourite-tea", "shoe-size"]) == ["favourite-tea: oolong", 'shoe-size: {"eu": 43}']
    assert kept.search("tea")[0]["content"] == "favourite-tea: oolong"
    kept.mdelete(["favourite-tea"])
    assert list(kept.yield_keys()) == []


async def store_async() -> None:
    kept = MemoryRouterStore(KEY, base_url=URL, session_id="store-async")
    await kept.amset([("favourite-colour", "teal")])
    assert await kept.amget(["favourite-colour"]) == ["favourite-colour: teal"]


def errors() -> None:
    memory = MemoryRouterClient(WRONG_KEY, base_url=URL)
    with raises(httpx.HTTPStatusError) as caught:
        memory.search("dog")
    assert caught[0].response.status_code == 401
    assert caught[0].response.json()["error"]
    with raises(httpx.HTTPStatusError) as caught:
        create_recall_node(base_url=URL)(
            {"messages": [HumanMessage("Hi there.")]}, {"configurable": {"user_id": "bob"}}
        )
    assert caught[0].response.status_code == 401
    nothing = create_recall_node(base_url=URL)({"messages": []}, {"configurable": {"memory_key": KEY}})
    assert nothing == {"memory_context": None}


if __name__ == "__main__":
    play(client, asynchronous, graph, tools, store, store_async, errors)
