"""The program as a process: what a kill leaves, what a SIGTERM lets finish, what a start prints."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx
import trio

from tests.fakes.provider import FakeProvider, chat_events, gated, open_fake_provider, stream_script
from tests.patience import PATIENCE_S
from tests.router.proxied import PATH, streamed
from tests.running import Client, ServerProcess, open_http, open_process, open_reply


def environment(provider: FakeProvider) -> dict[str, str]:
    return {
        "MEMORYROUTER_PROVIDERS__OPENAI__BASE_URL": provider.base_url,
        "MEMORYROUTER_PROVIDERS__OPENAI__API_KEY": "sk-operator-secret",
    }


def assert_quiet(server: ServerProcess, *secrets: str) -> None:
    """No log line holds a key or what anybody said; each line of a request names the request."""
    for entry in server.log:
        assert not any(secret in str(entry) for secret in secrets), entry["event"]
    requests = [entry for entry in server.log if entry["event"] == "request_done"]
    assert requests
    assert all(entry["request_id"].startswith("req_") for entry in requests)


async def ask_streamed(client: Client, text: str) -> bytes:
    """The whole streamed reply; the connection is left as soon as the end has been seen."""
    received = b""
    async with open_reply(client, PATH, streamed(text)) as reply:
        while b"[DONE]" not in received:
            received += await reply.next_data()
    return received


async def test_what_a_client_has_seen_end_survives_kill_9(tmp_path: Path) -> None:
    """A 202, an upload's 200 and a stream's end; the first start prints the key, the second prints nothing."""
    data_dir = tmp_path / "data"
    async with open_fake_provider() as provider:
        async with open_process(data_dir, environment=environment(provider)) as server, open_http(server.url) as http:
            key = server.account_key
            client = Client(http, key)
            await client.ingest("Ingested: the harbour opens at six.")
            await client.upload([{"content": f"Uploaded: harbour log entry {number}."} for number in range(50)])
            provider.enqueue(stream_script(chat_events(["Replied: the harbour ", "closes at ten."])))
            await ask_streamed(client, "Asked: when does the harbour close?")
            server.signal(signal.SIGKILL)
            assert await server.wait() == -signal.SIGKILL
            assert server.stdout == [f"account key: {key}"]
            assert_quiet(server, key, "harbour", "sk-operator-secret")

        async with open_process(data_dir, environment=environment(provider)) as server, open_http(server.url) as http:
            found = await Client(http, key).contents("harbour")
            assert server.stdout == []
    assert found == {
        "Ingested: the harbour opens at six.", "Asked: when does the harbour close?",
        "Replied: the harbour closes at ten.", *(f"Uploaded: harbour log entry {number}." for number in range(50)),
    }  # fmt: skip


async def test_sigterm_lets_a_stream_finish_and_the_next_start_is_immediate(tmp_path: Path) -> None:
    """New connections are refused meanwhile; exit code 0; the exchange is there."""
    data_dir = tmp_path / "data"
    events = chat_events(["Until the ", "very end."])
    gates = [trio.Event() for _ in events]
    async with open_fake_provider() as provider:
        async with open_process(data_dir, environment=environment(provider)) as server, open_http(server.url) as http:
            client = Client(http, server.account_key)
            provider.enqueue(stream_script(gated(events, gates)))
            gates[0].set()
            async with open_reply(client, PATH, streamed("Are you there?")) as reply:
                received = await reply.next_data()
                server.signal(signal.SIGTERM)
                await wait_refused(server.url)
                for gate in gates[1:]:
                    gate.set()
                while piece := await reply.next_data():
                    received += piece
            assert received == b"".join(events)
            assert await server.wait() == 0
            assert_quiet(server, client.key, "very end", "Are you there", "sk-operator-secret")

        async with open_process(data_dir) as server, open_http(server.url) as http:
            assert "Until the very end." in await Client(http, client.key).contents("end")
            server.signal(signal.SIGTERM)
            assert await server.wait() == 0


async def wait_refused(url: str) -> None:
    """Return once nothing accepts connections there any more."""
    with trio.fail_after(PATIENCE_S):
        while True:
            try:
                async with httpx.AsyncClient(trust_env=False) as http:
                    answer: Any = await http.get(f"{url}/livez")
                    assert answer.status_code == 200
            except httpx.TransportError:
                return
