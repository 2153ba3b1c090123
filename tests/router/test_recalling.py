"""From a conversation to a context."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC
from pathlib import Path

import msgspec
import numpy as np
import pytest
import trio
from numpy.typing import NDArray

from actors.embedder import open_embedder
from actors.supervisor import Supervisor, open_supervisor
from actors.vault_actor import VaultLimits
from models.embedding import TextEncoder, open_embedding_model
from models.errors import DeadlineExceeded
from models.ids import Access, VaultNumber, VaultRef, hash_key
from models.memory import Exchange, Memory, Message, Role
from models.messages import Hit, Scope
from models.packing import Piece
from models.rendering import render_context
from models.settings import VaultSettings
from models.text import normalised
from router.options import MemoryOptions
from router.questions import plainly
from router.recalling import (
    BLOCKS_MAX,
    NOTHING,
    ContextTokens,
    Recaller,
    Recollection,
    context_item,
    echo_of,
)
from tests.fakes.embedding import HashEmbedding
from tests.fakes.store import open_memory_store
from tests.patience import PATIENCE_S

OPTIONS = MemoryOptions(
    access=Access(), store_input=True, store_response=True, session_id=None, scope=Scope(), chunks_max=30,
    injection="tail", time_zone=UTC,
)  # fmt: skip


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def hit(text: str) -> Hit:
    memory = Memory(seq=1, role="user", content=text, timestamp_ms=0, stored_ms=0, source="ingest")
    return Hit(memory=memory, matched=text, score=0.5)


def test_the_question_itself_is_no_answer() -> None:
    """Asked before, it would match itself best; a statement said again is a memory all the same."""
    assert echo_of("what is my dog's NAME ?") == normalised("What is my dog's name?")
    assert echo_of("My dog is Rex.") is None


# --- recall ---


class BrokenEncoder(HashEmbedding):
    """A model that fails on capitals."""

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        if any("PUMP" in text for text in texts):
            raise RuntimeError("the model broke")
        return super().encode(texts)


@asynccontextmanager
async def open_recaller(encoder: TextEncoder | None = None) -> AsyncIterator[tuple[Recaller, Supervisor, VaultRef]]:
    async with (
        open_memory_store() as store,
        open_embedder(encoder or HashEmbedding()) as embedder,
        open_supervisor(store, embedder, VaultSettings(), VaultLimits(), drain_timeout_s=PATIENCE_S) as supervisor,
    ):
        account = await store.create_account(key_hash=hash_key("mk_a"), shown="mk_a…", created_ms=1)
        yield Recaller(embedder, supervisor, block_cache_s=60, clock=Clock()), supervisor, account.vault


async def remember(supervisor: Supervisor, vault: VaultRef, *texts: str) -> None:
    messages = tuple(Message(role="user", content=text) for text in texts)
    with await supervisor.pin(vault) as pin:
        receipt = pin.submit([Exchange(messages=messages, source="ingest", accepted_ms=1_000)])
        await receipt.wait_applied(timeout_s=PATIENCE_S)


async def test_what_is_relevant_becomes_a_context() -> None:
    """With its size; and nothing becomes none."""
    async with open_recaller() as (recaller, supervisor, vault):
        await remember(supervisor, vault, "My dog is called Rex.")
        found = await recaller.recall(
            vault, plainly("What is my dog called?"), OPTIONS, now_ms=2_000, timeout_s=PATIENCE_S
        )
        nothing = await recaller.recall(
            vault, plainly("Quarterly tax filing?"), OPTIONS, now_ms=2_000, timeout_s=PATIENCE_S
        )

    assert found.context is not None
    assert "My dog is called Rex." in found.context
    assert found.chunks == len(found.hits) == 1
    assert found.tokens == HashEmbedding().count_tokens(found.context)
    assert nothing.context is None
    assert (nothing.chunks, nothing.tokens) == (0, 0)


async def test_a_question_that_was_asked_before_does_not_come_back() -> None:
    async with open_recaller() as (recaller, supervisor, vault):
        await remember(supervisor, vault, "My dog is called Rex.", "What is my dog called?")
        question = plainly("what is my dog called ?")
        found = await recaller.recall(vault, question, OPTIONS, now_ms=2_000, timeout_s=PATIENCE_S)

    assert [hit.matched for hit in found.hits] == ["My dog is called Rex."]
    assert found.ids == ("mem_1",)


async def test_a_question_that_the_model_fails_on_is_answered_by_words() -> None:
    """An exception of the model must neither break a chat nor a search."""
    async with open_recaller(BrokenEncoder()) as (recaller, supervisor, vault):
        await remember(supervisor, vault, "The pump kept stopping all night.")
        question = "Was the PUMP stopping all night?"
        found = await recaller.recall(vault, plainly(question), OPTIONS, now_ms=2_000, timeout_s=PATIENCE_S)
        hits = await recaller.search(vault, question, OPTIONS, limit=5, now_ms=2_000, timeout_s=PATIENCE_S)

    assert found.context is not None
    assert [hit.memory.content for hit in hits] == ["The pump kept stopping all night."]


async def test_no_question_and_no_room_cost_nothing() -> None:
    """The vault is not even asked."""
    async with open_recaller() as (recaller, _, _):
        nobody = VaultRef(number=VaultNumber(99), shard=99)
        none = OPTIONS.__class__(
            access=Access(), store_input=True, store_response=True, session_id=None, scope=Scope(), chunks_max=0,
            injection="tail", time_zone=UTC,
        )  # fmt: skip
        assert await recaller.recall(nobody, plainly(""), OPTIONS, now_ms=1, timeout_s=PATIENCE_S) is NOTHING
        assert await recaller.recall(nobody, plainly("Anything?"), none, now_ms=1, timeout_s=PATIENCE_S) is NOTHING


class SlowEncoder(HashEmbedding):
    """A model that answers when a test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.release = trio.Event()

    def encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        trio.from_thread.run(self.release.wait)
        return super().encode(texts)


async def test_recall_ends_at_its_deadline() -> None:
    """However long the model takes."""
    encoder = SlowEncoder()
    async with open_recaller(encoder) as (recaller, _, vault):
        with pytest.raises(DeadlineExceeded):
            await recaller.recall(vault, plainly("What is my dog called?"), OPTIONS, now_ms=1, timeout_s=0.02)
        encoder.release.set()


# --- blocks of tool loops ---


async def test_a_block_is_kept_for_the_loop_and_no_longer() -> None:
    """With its size, without the memories that it was made of."""
    async with open_recaller() as (_, supervisor, vault):
        clock = Clock()
        recaller = Recaller(supervisor.embedders.default, supervisor, block_cache_s=60, clock=clock)
        recollection = Recollection(context="block", hits=(hit("a"),), chunks=1, tokens=5, total_ms=9.0)
        recaller.cache_block((vault.number, "a"), recollection)

        assert recaller.cached_block((vault.number, "a")) == Recollection(context="block", chunks=1, tokens=5)
        assert recaller.cached_block((vault.number, "b")) is None
        clock.now_s += 60
        assert recaller.cached_block((vault.number, "a")) is None


async def test_the_cache_of_blocks_is_bounded_and_drops_what_has_expired() -> None:
    """The oldest goes first."""
    async with open_recaller() as (_, supervisor, vault):
        clock = Clock()
        recaller = Recaller(supervisor.embedders.default, supervisor, block_cache_s=60, clock=clock)
        for number in range(BLOCKS_MAX + 5):
            recaller.cache_block((vault.number, number), NOTHING)
        assert len(recaller._blocks) == BLOCKS_MAX
        assert recaller.cached_block((vault.number, 4)) is None
        assert recaller.cached_block((vault.number, 5)) is not None

        clock.now_s += 61
        recaller.cache_block((vault.number, "new"), NOTHING)
        assert len(recaller._blocks) == 1


async def test_deleting_forgets_the_blocks_of_the_vault_alone() -> None:
    """A loop under way must not go on quoting what is gone."""
    async with open_recaller() as (recaller, _, vault):
        other = VaultRef(number=VaultNumber(vault.number + 1), shard=0)
        recaller.cache_block((vault.number, "a"), NOTHING)
        recaller.cache_block((other.number, "a"), NOTHING)
        recaller.forget_blocks(vault)

        assert recaller.cached_block((vault.number, "a")) is None
        assert recaller.cached_block((other.number, "a")) is not None


async def test_what_was_recalled_before_a_deletion_is_not_kept_after_it() -> None:
    """The block may quote what is gone; what is recalled afterwards is kept."""
    async with open_recaller() as (recaller, supervisor, vault):
        await remember(supervisor, vault, "My dog is called Rex.")
        question = plainly("What is my dog called?")
        before = await recaller.recall(vault, question, OPTIONS, now_ms=1, timeout_s=PATIENCE_S)
        assert before.context is not None
        recaller.forget_blocks(vault)
        recaller.cache_block((vault.number, "a"), before)
        assert recaller.cached_block((vault.number, "a")) is None
        after = await recaller.recall(vault, question, OPTIONS, now_ms=1, timeout_s=PATIENCE_S)
        recaller.cache_block((vault.number, "a"), after)
        assert recaller.cached_block((vault.number, "a")) is not None


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_contexts_tokens_are_those_of_its_text(role: Role, tmp_path: Path) -> None:
    """Adding up the parts gives what the model's tokeniser counts for the whole."""
    encoder = open_embedding_model(tmp_path, threads=1)
    texts = ["My dog is called Rex.", "Naïve café, 3.14 — ok?", "Überraschung!\n\nZwei Zeilen", "日本語のテキスト 😀"]
    now_ms = 1_790_000_000_000
    pieces = [
        Piece(
            memory=Memory(
                seq=n, role=role, content=text, timestamp_ms=now_ms - n * 86_400_000, stored_ms=0, source="ingest",
                tokens=encoder.count_tokens(text),
            ),
            text=text,
        )
        for n, text in enumerate(texts)
    ]  # fmt: skip
    entries = [(pieces[0],), (pieces[1], pieces[2], pieces[3])]
    context = render_context([context_item(entry) for entry in entries], now_ms, UTC)
    assert ContextTokens(encoder).context_tokens(entries, now_ms, UTC) == encoder.count_tokens(context)


async def test_a_token_budget_holds_for_the_whole_context() -> None:
    """Whichever of the server's and the request's is smaller; what is too long makes way for what fits."""
    dogs = [f"My dog number {number} is called Rex {'and barks at bones ' * number}." for number in range(8)]
    async with open_recaller() as (_, supervisor, vault):
        await remember(supervisor, vault, *dogs)
        frame = ContextTokens(HashEmbedding()).frame_tokens
        for server, wish in ((frame + 60, 0), (0, frame + 60), (frame + 60, 10_000), (10_000, frame + 60)):
            recaller = Recaller(
                supervisor.embedders.default, supervisor, block_cache_s=60, context_tokens_max=server, clock=Clock()
            )
            options = msgspec.structs.replace(OPTIONS, context_tokens_max=wish)
            found = await recaller.recall(
                vault, plainly("What are my dogs called?"), options, now_ms=2_000, timeout_s=PATIENCE_S
            )
            assert found.context is not None
            assert 0 < found.chunks < len(dogs)
            assert HashEmbedding().count_tokens(found.context) == found.tokens <= frame + 60


async def test_an_answer_comes_with_its_question() -> None:
    """In one entry, and counted once: it is one memory that was found."""
    said = (
        Message(role="assistant", content="Which of the two hotels in Porto shall I book?"),
        Message(role="user", content="The second one, please."),
    )
    async with open_recaller() as (recaller, supervisor, vault):
        with await supervisor.pin(vault) as pin:
            receipt = pin.submit([Exchange(messages=said, source="ingest", accepted_ms=1_000)])
            await receipt.wait_applied(timeout_s=PATIENCE_S)
        one = msgspec.structs.replace(OPTIONS, chunks_max=1)
        found = await recaller.recall(
            vault, plainly("The second one of what?"), one, now_ms=2_000, timeout_s=PATIENCE_S
        )

    assert found.context is not None
    assert found.context.count("[MEMORY - ") == found.chunks == 1
    question, answer = found.context.splitlines()[1:3]
    assert question.endswith("Assistant: Which of the two hotels in Porto shall I book?")
    assert answer == "  The user then: The second one, please."
    assert found.tokens == HashEmbedding().count_tokens(found.context)


async def test_what_placed_a_memory_is_told_on_request_alone() -> None:
    """The features times their weights order the hits; unasked, nothing is computed."""
    async with open_recaller() as (recaller, supervisor, vault):
        await remember(supervisor, vault, "My dog is called Rex.", "My cat is called Tom.", "It rained in Graz.")
        question = "What is my dog called?"
        plain = await recaller.search(vault, question, OPTIONS, limit=3, now_ms=2_000, timeout_s=PATIENCE_S)
        told = await recaller.search(
            vault, question, OPTIONS, limit=3, now_ms=2_000, timeout_s=PATIENCE_S, explain=True
        )

    assert [hit.explanation for hit in plain] == [None] * 3
    assert [hit.memory.seq for hit in plain] == [hit.memory.seq for hit in told]
    explanations = [hit.explanation for hit in told if hit.explanation is not None]
    assert [explanation.rank for explanation in explanations] == [1, 2, 3]
    assert [explanation.relevance for explanation in explanations] == [hit.score for hit in told]
    sums = [sum(e.features[name] * e.weights[name] for name in e.features) for e in explanations]
    assert sums == sorted(sums, reverse=True)
    assert all(set(e.features) == set(e.weights) >= {"base", "lexical", "dense"} for e in explanations)
