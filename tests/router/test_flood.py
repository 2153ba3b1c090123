"""Clients that flood, upload without end or stop reading: honest refusals over HTTP, and nothing grows for them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx
import msgspec
import numpy as np
import trio
from numpy.typing import NDArray
from trio.testing import wait_all_tasks_blocked

from models.settings import Settings, VaultSettings
from tests.fakes.embedding import HashEmbedding
from tests.fakes.provider import chat_chunk, stream_script
from tests.patience import PATIENCE_S, PATIENT_VAULTS
from tests.router.proxied import PATH, open_both, streamed
from tests.running import Client, object_of, open_reply, open_server, settings_for, user

INBOX_MAX = 20
CHUNK_BYTES = 65_536


class HeldEncoder(HashEmbedding):
    """A model that embeds no memory before it may; questions are answered."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if any("is true" in text for text in texts):
            assert self.go.wait(PATIENCE_S)
        return super().encode(texts)


def small_inbox() -> Settings:
    vaults: VaultSettings = msgspec.structs.replace(PATIENT_VAULTS, inbox_messages_max=INBOX_MAX)
    return settings_for(vaults=vaults)


async def flood(client: Client, *, requests: int) -> list[tuple[str, httpx.Response]]:
    """Ingest so many messages at once; each text with its answer."""
    answers: list[tuple[str, httpx.Response]] = []

    async def ingest(text: str) -> None:
        answers.append((text, await client.post("/v1/memory/ingest", {"messages": [user(text)]})))

    async with trio.open_nursery() as clients:
        for number in range(requests):
            clients.start_soon(ingest, f"fact{number} is true")
    return answers


async def test_a_flood_gets_503_in_our_own_format_and_everything_accepted_is_kept(tmp_path: Path) -> None:
    encoder = HeldEncoder()
    async with open_server(tmp_path / "data", small_inbox(), encoder=encoder) as client:
        answers = await flood(client, requests=60)
        accepted = {text for text, answer in answers if answer.status_code == 202}
        refused = [answer for _, answer in answers if answer.status_code == 503]
        assert (len(accepted), len(refused)) == (INBOX_MAX, 40)
        for answer in refused:
            assert object_of(answer)["code"] == "overloaded"
            assert int(answer.headers["retry-after"]) >= 1
        assert await client.contents("fact") == accepted  # by their words, at once

        chat = await client.chat("Does it go on?", model="local/recall")
        assert (chat.status_code, chat.headers["x-memory-status"]) == (200, "not_stored")
        other = await client.other()
        assert (await flood(other, requests=1))[0][1].status_code == 202  # the neighbour's inbox is its own

        encoder.go.set()
        with trio.fail_after(PATIENCE_S):  # embedded is not yet written: room is made by the commit
            while (await client.post("/v1/memory/ingest", {"messages": [user("fact after it")]})).status_code == 503:
                await trio.lowlevel.checkpoint()
        assert await client.contents("fact") == accepted | {"fact after it"}


async def test_an_upload_larger_than_the_bound_waits_for_the_others_and_gets_in(tmp_path: Path) -> None:
    encoder = HeldEncoder()
    async with open_server(tmp_path / "data", small_inbox(), encoder=encoder) as client:
        await client.ingest("fact0 is true")
        answered = trio.Event()

        async def upload() -> None:
            answer = await client.upload([{"content": f"line{line} is true"} for line in range(3 * INBOX_MAX)])
            assert answer["stats"]["stored"] == 3 * INBOX_MAX
            answered.set()

        async with trio.open_nursery() as uploading:
            uploading.start_soon(upload)
            while (await flood(client, requests=1))[0][1].status_code == 202:
                pass  # until the inbox is full, or the upload waits and comes first
            assert not answered.is_set()
            encoder.go.set()


async def test_an_upload_that_comes_again_waits_for_no_room(tmp_path: Path) -> None:
    """What the vault knows needs none, however full its inbox is, and counts as duplicates."""
    lines = [{"content": f"line{line} is true"} for line in range(3 * INBOX_MAX)]
    encoder = HeldEncoder()
    async with open_server(tmp_path / "data", small_inbox(), encoder=encoder) as client:
        first = await client.upload(lines)
        again = await client.upload(lines)
        stats = await client.stats()
        assert (await flood(client, requests=1))[0][1].status_code == 503  # all of it still waits for the model
        encoder.go.set()
        await client.wait_embedded()

    assert (first["stats"]["stored"], first["stats"]["duplicates"]) == (3 * INBOX_MAX, 0)
    assert (again["stats"]["stored"], again["stats"]["duplicates"]) == (0, 3 * INBOX_MAX)
    assert (stats["memories"], stats["duplicates"], stats["pending"]) == (3 * INBOX_MAX,) * 3


async def test_a_client_that_stops_reading_stops_its_provider_and_nobody_else(tmp_path: Path) -> None:
    """Sockets fill up, and then everything behind them waits: nothing is buffered without a bound."""
    produced = 0

    def endless() -> Iterator[bytes]:
        nonlocal produced
        while True:
            produced += 1
            yield chat_chunk("x" * CHUNK_BYTES)

    async with open_both(tmp_path) as (server, provider):
        provider.enqueue(stream_script(endless()))
        with trio.fail_after(PATIENCE_S):
            async with open_reply(server, PATH, streamed("Talk without end")) as reply:
                assert reply.status == 200
                await wait_all_tasks_blocked(0.05)  # an endless stream that went on would never let this return
                assert produced * CHUNK_BYTES < 64 * 1024 * 1024
                await server.ingest("Others go on.")
