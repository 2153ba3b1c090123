"""The two minutes that sell it: tell it three things, restart it, ask, get the right one back.

With the OpenAI SDK, the program in a process of its own, and the real embedding model.
"""

from __future__ import annotations

import signal
from pathlib import Path

import openai
import trio

from tests.running import Client, open_http, open_process

MODEL = "local/recall"
FACTS = (
    "My daughter Mia is allergic to peanuts.",
    "We are moving to Lisbon in September because of my new job.",
    "I drive an old blue Saab that my grandfather gave me.",
)


def sdk(url: str, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


def say(client: openai.OpenAI, text: str) -> str:
    reply = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": text}])
    return reply.choices[0].message.content or ""


def say_streamed(client: openai.OpenAI, text: str) -> str:
    stream = client.chat.completions.create(
        model=MODEL,
        messages=[{"role": "user", "content": text}],
        stream=True,
        stream_options={"include_usage": True},
    )
    pieces: list[str] = []
    usage = None
    for chunk in stream:
        pieces += [choice.delta.content or "" for choice in chunk.choices]
        usage = chunk.usage or usage
    assert usage is not None
    assert usage.total_tokens > 0
    return "".join(pieces)


def tell_the_facts(url: str, key: str) -> None:
    with sdk(url, key) as client:
        for fact in FACTS:
            say(client, fact)


def ask_for_the_facts(url: str, key: str) -> None:
    with sdk(url, key) as client:
        for question, fact, ask in (
            ("What is my daughter allergic to?", FACTS[0], say),
            ("Which city are we moving to, and when?", FACTS[1], say_streamed),
            ("What kind of car do I have?", FACTS[2], say),
            ("What kind of car do I have?", FACTS[2], say_streamed),
        ):
            assert fact in ask(client, question).splitlines()[0], question


def ask_as_a_stranger(url: str, key: str) -> None:
    with sdk(url, key) as client:
        for question in ("What kind of car do I have?", "Which city are we moving to, and when?"):
            answer = say(client, question)
            assert not any(fact in answer for fact in FACTS)
            assert "do not find" in answer


async def test_the_two_minutes_that_sell_it(tmp_path: Path) -> None:
    """Streamed and not, also in other words than those of the fact, and when asked twice; another key knows nothing."""
    data_dir = tmp_path / "data"
    async with open_process(data_dir) as server:
        key = server.account_key
        await trio.to_thread.run_sync(tell_the_facts, server.url, key)
        server.signal(signal.SIGTERM)
        assert await server.wait() == 0

    async with open_process(data_dir) as server:
        async with open_http(server.url) as http:
            await Client(http, key).wait_embedded()  # what is asked in other words is found by its meaning
        await trio.to_thread.run_sync(ask_for_the_facts, server.url, key)
        async with open_http(server.url) as http:
            other = await Client(http, key).other("somebody else")
        await trio.to_thread.run_sync(ask_as_a_stranger, server.url, other.key)
