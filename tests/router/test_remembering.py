"""What of a conversation is worth storing, and what the vault knows already."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC

import pytest

from actors.embedder import open_embedder
from actors.supervisor import Supervisor, open_supervisor
from actors.vault_actor import VaultLimits
from models.errors import VaultQuarantined
from models.ids import Access, VaultNumber, VaultRef, hash_key
from models.memory import Exchange, Message
from models.messages import Scope
from models.settings import VaultSettings
from router import remembering
from router.options import MemoryOptions
from router.providers.base import Turn
from router.remembering import Rememberer, messages_of
from tests.fakes.embedding import HashEmbedding
from tests.fakes.store import open_memory_store
from tests.patience import PATIENCE_S


def options(
    *,
    access: Access | None = None,
    store_input: bool = True,
    store_response: bool = True,
    session_id: str | None = None,
) -> MemoryOptions:
    return MemoryOptions(
        access=access or Access(), store_input=store_input, store_response=store_response, session_id=session_id,
        scope=Scope(), chunks_max=30, injection="tail", time_zone=UTC,
    )  # fmt: skip


TURNS = [
    Turn(role="user", text="one"),
    Turn(role="assistant", text="two"),
    Turn(role="user", text=" three "),
    Turn(role="assistant", text="prefill"),
]


def test_history_is_told_from_the_final_exchange() -> None:
    """Everything from the last user turn on is final; the session is that of the request."""
    messages = messages_of(TURNS, options(session_id="s"), content_max_chars=100)

    assert [(message.role, message.content, message.final) for message in messages] == [
        ("user", "one", False), ("assistant", "two", False), ("user", "three", True), ("assistant", "prefill", True),
    ]  # fmt: skip
    assert {message.session_id for message in messages} == {"s"}


def test_sides_and_messages_can_be_kept_out() -> None:
    """By the options of the request and by the mark on a message."""
    marked = [Turn(role="user", text="secret", remember=False), *TURNS]

    def contents(wanted: MemoryOptions) -> list[str]:
        return [message.content for message in messages_of(marked, wanted, content_max_chars=100)]

    assert contents(options()) == ["one", "two", "three", "prefill"]
    assert contents(options(store_input=False)) == ["two", "prefill"]
    assert contents(options(store_response=False)) == ["one", "three"]
    assert contents(options(access=Access(write=False))) == []


def test_our_own_blocks_are_not_remembered() -> None:
    """Clients send back what they were given."""
    block = "<memory_context>\n[MEMORY - just now (x)] old\n</memory_context>"
    turns = [Turn(role="user", text=f"{block}\n\nnew"), Turn(role="user", text=block)]
    assert [message.content for message in messages_of(turns, options(), content_max_chars=100)] == ["new"]


def test_a_text_over_the_limit_is_cut_and_the_log_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Without quoting it."""
    with caplog.at_level(logging.WARNING):
        messages = messages_of([Turn(role="user", text="secret" * 10)], options(), content_max_chars=6)

    assert [message.content for message in messages] == ["secret"]
    assert "content_cut" in caplog.text
    assert "secret" not in caplog.text


@asynccontextmanager
async def open_vault() -> AsyncIterator[tuple[Supervisor, VaultRef]]:
    async with (
        open_memory_store() as store,
        open_embedder(HashEmbedding()) as embedder,
        open_supervisor(store, embedder, VaultSettings(), VaultLimits(), drain_timeout_s=PATIENCE_S) as supervisor,
    ):
        account = await store.create_account(key_hash=hash_key("mk_a"), shown="mk_a…", created_ms=1)
        yield supervisor, account.vault


async def test_known_history_is_left_out_and_the_final_exchange_never(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the final exchange is a repeat is for the vault to say."""
    monkeypatch.setattr(remembering, "SIFT_TIMEOUT_S", PATIENCE_S)
    async with open_vault() as (supervisor, vault):
        stored = (Message(role="user", content="one"), Message(role="user", content="three"))
        with await supervisor.pin(vault) as pin:
            receipt = pin.submit([Exchange(messages=stored, source="proxy", accepted_ms=1_000)])
            await receipt.wait_applied(timeout_s=PATIENCE_S)
        messages = messages_of(TURNS, options(), content_max_chars=100)
        unknown = await Rememberer(supervisor).unknown(vault, messages, source="proxy", now_ms=2_000)

    assert [message.content for message in unknown] == ["two", "three", "prefill"]


class QuarantinedSupervisor:
    """A supervisor whose vaults all rest."""

    def current(self, vault: VaultRef) -> VaultRef:
        return vault

    async def ask(self, *_: object, **__: object) -> object:
        raise VaultQuarantined("resting")


async def test_a_vault_that_cannot_be_asked_costs_bytes_and_no_memory() -> None:
    """Everything goes into the log, where the vault decides again."""
    messages = messages_of(TURNS, options(), content_max_chars=100)
    rememberer = Rememberer(QuarantinedSupervisor())  # type: ignore[arg-type]  # has the methods that are used
    vault = VaultRef(number=VaultNumber(1), shard=0)

    assert await rememberer.unknown(vault, messages, source="proxy", now_ms=1) == messages
