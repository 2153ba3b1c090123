"""The program as a process between clients of every wire format and their providers: how it stops, what it lets out."""

from __future__ import annotations

import itertools
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import trio

from tests.contract.dialects import TRANSLATED, WITH_TRANSLATED, beginning, streaming
from tests.contract.test_lifecycle import wait_refused
from tests.fakes.provider import FakeProvider, Script, gated, open_fake_provider
from tests.patience import PATIENCE_S
from tests.router.test_wire_formats import QUESTION, REPLY, Dialect, script
from tests.running import Client, open_http, open_process, open_reply

OPERATORS_KEY, OWN_KEY = "sk-canary-of-the-operator", "sk-canary-of-the-caller"


def environment(provider: FakeProvider) -> dict[str, str]:
    """The three formats of providers, all at the same address, and one at an address where nobody is."""
    origin = provider.base_url.removesuffix("/v1")
    names = {"OPENAI": provider.base_url, "ANTHROPIC": origin, "GOOGLE": origin, "MISTRAL": "http://127.0.0.1:9/v1"}
    made = {"MEMORYROUTER_LOG__LEVEL": "debug"}
    for name, url in names.items():
        made[f"MEMORYROUTER_PROVIDERS__{name}__BASE_URL"] = url
        made[f"MEMORYROUTER_PROVIDERS__{name}__API_KEY"] = OPERATORS_KEY
    return made


def at_provider(dialect: Dialect) -> Dialect:
    """The same with the name of the provider in the place of `fake`."""
    model = f"{dialect.provider_format}/m"
    return msgspec.structs.replace(
        dialect,
        path=dialect.path.replace("fake/m", model),
        stream_path=dialect.stream_path.replace("fake/m", model),
        body={**dialect.body, "model": model} if "model" in dialect.body else dialect.body,
    )


async def test_sigterm_lets_streams_of_every_format_finish(tmp_path: Path) -> None:
    """Their bytes are whole, new connections are refused meanwhile, and the exit code is 0."""
    dialects = [at_provider(dialect) for dialect in WITH_TRANSLATED]
    gates = [[trio.Event() for _ in dialect.events] for dialect in dialects]
    async with (
        open_fake_provider() as provider,
        open_process(tmp_path / "data", environment=environment(provider)) as server,
        open_http(server.url) as http,
        AsyncExitStack() as open_streams,
    ):
        client, replies = Client(http, server.account_key), []
        for dialect, own_gates in zip(dialects, gates, strict=True):
            provider.enqueue(streaming(dialect, gated(dialect.events, own_gates)))
            own_gates[0].set()
            opening = open_reply(client, dialect.stream_path, dialect.request(stream=True))
            replies.append(await open_streams.enter_async_context(opening))
        server.signal(signal.SIGTERM)
        await wait_refused(server.url)
        for gate in itertools.chain.from_iterable(gates):
            gate.set()
        with trio.fail_after(PATIENCE_S):
            for dialect, reply in zip(dialects, replies, strict=True):
                received = b""
                while piece := await reply.next_data():
                    received += piece
                if dialect.name == TRANSLATED.name:
                    assert received.endswith(b"data: [DONE]\n\n")
                else:
                    assert received == b"".join(dialect.events)
        assert await server.wait() == 0


async def test_no_key_no_url_and_no_word_gets_out(tmp_path: Path) -> None:
    """Neither in answers nor in the log at its most talkative, after replies, refusals, cuts and dead providers."""
    answers: list[Any] = []
    async with (
        open_fake_provider() as provider,
        open_process(tmp_path / "data", environment=environment(provider)) as server,
        open_http(server.url) as http,
    ):
        client = Client(http, server.account_key)
        for dialect in map(at_provider, WITH_TRANSLATED):
            answers += await say_much(client, provider, dialect)
        port = provider.base_url.removesuffix("/v1").rpartition(":")[2]
        server.signal(signal.SIGTERM)
        assert await server.wait() == 0

    secrets = (OPERATORS_KEY, OWN_KEY, "sk-canary", server.account_key, f":{port}", "127.0.0.1:9")
    for answer in answers:
        shown = answer.text + str(answer.headers)
        assert not [secret for secret in secrets if secret in shown], shown
    assert len(server.log) > len(answers)
    for entry in server.log:
        assert not [secret for secret in (*secrets, QUESTION, REPLY) if secret in str(entry)], entry["event"]


async def say_much(client: Client, provider: FakeProvider, dialect: Dialect) -> list[Any]:
    """Everything that may go well or wrong, with the keys in all places where they may stand."""
    quoting = '{"error": {"message": "Wrong API key: KEY", "type": "authentication_error"}}'
    own = {"x-memory-key": client.key, "authorization": f"Bearer {OWN_KEY}"}
    by_query = f"{dialect.path}?key={client.key}"
    dead = {**dialect.body, "model": "mistral/m"}
    is_openai = dialect.provider_format == "openai"
    provider.enqueue(script(dialect, stream=False))
    answers = [await client.post(by_query, dialect.body, key="")]
    for key, headers in ((OPERATORS_KEY, {}), (OWN_KEY, own)):
        refusal = quoting.replace("KEY", key).encode()
        provider.enqueue(Script(status=401, headers=[("www-authenticate", f"Bearer {key}")], body=refusal))
        answers.append(await client.post(dialect.path, dialect.body, headers=headers))
        assert "Wrong API key: ****" in answers[-1].text
    provider.enqueue(streaming(dialect, beginning(dialect), ending="cut"))
    answers.append(await client.post(dialect.stream_path, dialect.request(stream=True)))
    answers.append(await client.post(by_query, b"{", key=""))
    answers.append(await client.post(dialect.path, dialect.body, headers={"x-provider-key": client.key}))
    if is_openai:
        answers.append(await client.post(dialect.path, dead))
    return answers
