"""From a conversation to a context."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC
from pathlib import Path

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
from models.rendering import render_context
from models.settings import VaultSettings
from router.options import MemoryOptions
from router.providers.base import Turn
from router.recalling import (
    BLOCKS_MAX,
    NOTHING,
    QUESTION_CHARACTERS_MAX,
    ContextTokens,
    Recaller,
    Recollection,
    context_item,
    question_text,
    without_echo,
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


def turns(*texts: str) -> list[Turn]:
    """A conversation that begins with the user."""
    return [Turn(role="user" if at % 2 == 0 else "assistant", text=text) for at, text in enumerate(texts)]


def hit(text: str) -> Hit:
    memory = Memory(seq=1, role="user", content=text, timestamp_ms=0, stored_ms=0, source="ingest")
    return Hit(memory=memory, matched=text, score=0.5)


# --- the question ---


def test_the_question_is_the_last_thing_the_user_said() -> None:
    """Not the history, not a prefilled reply."""
    said = turns("I live in Graz.", "Nice!", "Which museums in town are open on Mondays?", "Let me see: ")
    assert question_text(said) == "Which museums in town are open on Mondays?"


def test_a_terse_question_is_understood_with_what_was_said_before() -> None:
    """ "And there?" alone finds nothing."""
    said = turns("When is the museum in Graz open?", "From ten to six.", "And in Vienna?")
    assert question_text(said) == "When is the museum in Graz open?\nFrom ten to six.\nAnd in Vienna?"


def test_a_long_question_keeps_its_end() -> None:
    """What is asked usually comes last."""
    question = question_text(turns("x " * 5_000 + "Where is my passport?"))
    assert len(question) == QUESTION_CHARACTERS_MAX
    assert question.endswith("Where is my passport?")


def test_without_a_user_there_is_no_question() -> None:
    """Nor with one whose text is our own block."""
    block = "<memory_context>\n[MEMORY - just now (x)] old\n</memory_context>"
    assert question_text([]) == ""
    assert question_text([Turn(role="assistant", text="Hello")]) == ""
    assert question_text([Turn(role="user", text=block)]) == ""


def test_the_question_itself_is_no_answer() -> None:
    """Asked before, it would match itself best; a statement said again is a memory all the same."""
    hits = [hit("What is my dog's name?"), hit("My dog is Rex.")]
    assert [found.matched for found in without_echo(hits, "what is my dog's NAME ?")] == ["My dog is Rex."]
    assert len(without_echo([hit("My dog is Rex.")], "My dog is Rex.")) == 1


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
        found = await recaller.recall(vault, "What is my dog called?", OPTIONS, now_ms=2_000, timeout_s=PATIENCE_S)
        nothing = await recaller.recall(vault, "Quarterly tax filing?", OPTIONS, now_ms=2_000, timeout_s=PATIENCE_S)

    assert found.context is not None
    assert "My dog is called Rex." in found.context
    assert found.chunks == len(found.hits) == 1
    assert found.tokens == HashEmbedding().count_tokens(found.context)
    assert nothing.context is None
    assert (nothing.chunks, nothing.tokens) == (0, 0)


async def test_a_question_that_the_model_fails_on_is_answered_by_words() -> None:
    """An exception of the model must neither break a chat nor a search."""
    async with open_recaller(BrokenEncoder()) as (recaller, supervisor, vault):
        await remember(supervisor, vault, "The pump kept stopping all night.")
        question = "Was the PUMP stopping all night?"
        found = await recaller.recall(vault, question, OPTIONS, now_ms=2_000, timeout_s=PATIENCE_S)
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
        assert await recaller.recall(nobody, "", OPTIONS, now_ms=1, timeout_s=PATIENCE_S) is NOTHING
        assert await recaller.recall(nobody, "Anything?", none, now_ms=1, timeout_s=PATIENCE_S) is NOTHING


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
            await recaller.recall(vault, "What is my dog called?", OPTIONS, now_ms=1, timeout_s=0.02)
        encoder.release.set()


# --- blocks of tool loops ---


async def test_a_block_is_kept_for_the_loop_and_no_longer() -> None:
    """With its size, without the memories that it was made of."""
    async with open_recaller() as (opened, supervisor, vault):
        clock = Clock()
        recaller = Recaller(opened._embedder, supervisor, block_cache_s=60, clock=clock)
        recollection = Recollection(context="block", hits=(hit("a"),), chunks=1, tokens=5, total_ms=9.0)
        recaller.cache_block((vault.number, "a"), recollection)

        assert recaller.cached_block((vault.number, "a")) == Recollection(context="block", chunks=1, tokens=5)
        assert recaller.cached_block((vault.number, "b")) is None
        clock.now_s += 60
        assert recaller.cached_block((vault.number, "a")) is None


async def test_the_cache_of_blocks_is_bounded_and_drops_what_has_expired() -> None:
    """The oldest goes first."""
    async with open_recaller() as (opened, supervisor, vault):
        clock = Clock()
        recaller = Recaller(opened._embedder, supervisor, block_cache_s=60, clock=clock)
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


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_contexts_tokens_are_those_of_its_text(role: Role, tmp_path: Path) -> None:
    """Adding up the parts gives what the model's tokeniser counts for the whole."""
    encoder = open_embedding_model(tmp_path, threads=1)
    texts = ["My dog is called Rex.", "Naïve café, 3.14 — ok?", "Überraschung!\n\nZwei Zeilen", "日本語のテキスト 😀"]
    now_ms = 1_790_000_000_000
    hits = [
        Hit(
            memory=Memory(
                seq=n, role=role, content=text, timestamp_ms=now_ms - n * 86_400_000, stored_ms=0, source="ingest",
                tokens=encoder.count_tokens(text),
            ),
            matched=text,
            score=1.0,
        )
        for n, text in enumerate(texts)
    ]  # fmt: skip
    context = render_context([context_item(hit) for hit in hits], now_ms, UTC)
    assert ContextTokens(encoder).context_tokens(hits, now_ms, UTC) == encoder.count_tokens(context)
