"""A caller may leave at any checkpoint, and an actor may be ended at any: nothing that they held stays behind.

Each operation runs again and again, cancelled at its first checkpoint, its second, its third, until it gets through.
Whole requests are treated so in `tests/campaigns/test_cancelled_requests.py`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.embedder import Embedder, Lane, open_embedder
from models.errors import VaultUnavailable
from models.ids import VaultRef
from models.messages import Forget, Stats
from tests.actors.checkpoints import Attempt, Task, every_checkpoint, lineage
from tests.actors.house import Gate, House, exchange, open_house
from tests.fakes.embedding import HashEmbedding

Operation = Callable[[House, VaultRef], Awaitable[None]]


async def ask(house: House, vault: VaultRef) -> None:
    await house.supervisor.ask(vault, Stats(), timeout_s=60)


async def remember(house: House, vault: VaultRef) -> None:
    with await house.supervisor.pin(vault) as pin:
        receipt = pin.submit([exchange("said while leaving")])
        await receipt.wait_durable()
        await receipt.wait_applied(timeout_s=60)


async def pin_and_read(house: House, vault: VaultRef) -> None:
    """As a proxied chat: a pin, a recall, the provider, the hand-over."""
    with await house.supervisor.pin(vault) as pin:
        await house.found(vault)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        receipt = pin.submit([exchange("said while leaving")])
    await receipt.wait_durable()


async def forget(house: House, vault: VaultRef) -> None:
    await house.supervisor.ask(vault, Forget("s"), timeout_s=60)


async def resume(house: House, vault: VaultRef) -> None:
    await house.supervisor.resume()


@pytest.mark.parametrize("warm", [True, False])
@pytest.mark.parametrize("operation", [ask, remember, pin_and_read, forget, resume])
async def test_nothing_stays_behind_wherever_a_caller_leaves(
    operation: Operation, warm: bool, autojump_clock: MockClock
) -> None:
    for attempt in every_checkpoint():
        async with open_house() as house:
            vault = await house.new_vault()
            await house.store.accept_nowait(vault, [exchange("known")], lambda _: None).wait_durable()
            if warm:
                await house.stats(vault)
                await wait_all_tasks_blocked()
            with attempt.cancelling():
                await operation(house, vault)
            await wait_all_tasks_blocked()
            texts = await house.found(vault)
            assert texts in (["known"], ["known", "said while leaving"])
            assert (await house.remember(vault, "said afterwards")).stored == 1
            await wait_all_tasks_blocked()
            assert house.nothing_is_held(vault)
            assert house.stored(vault) == [*texts, "said afterwards"]
            assert house.supervisor.statistics()["crashed"] == 0


@pytest.mark.parametrize("warm", [True, False])
async def test_an_erasure_is_whole_or_not_begun_wherever_its_caller_leaves(
    warm: bool, autojump_clock: MockClock
) -> None:
    for attempt in every_checkpoint():
        async with open_house() as house:
            vault = await house.new_vault()
            if warm:
                await house.remember(vault, "a secret")
                await wait_all_tasks_blocked()
            with attempt.cancelling():
                await house.supervisor.erase(vault)
            erased = vault.number not in house.store.disk.vaults
            assert erased == (house.supervisor.current(vault) != vault)
            assert await house.found(vault) == (["a secret"] if warm and not erased else [])
            assert (await house.remember(vault, "said afterwards")).stored == 1
            await wait_all_tasks_blocked()
            assert house.nothing_is_held(house.supervisor.current(vault))


async def test_a_hand_over_that_was_begun_is_finished_though_its_caller_has_left(autojump_clock: MockClock) -> None:
    """`submit` has no checkpoint: whoever gets past it has handed over."""
    async with open_house() as house:
        vault = await house.new_vault()
        with trio.CancelScope() as leaving, await house.supervisor.pin(vault) as pin:
            leaving.cancel()
            pin.submit([exchange("said while leaving")])
            await trio.sleep_forever()
        await wait_all_tasks_blocked()
        assert await house.found(vault) == ["said while leaving"]
        await wait_all_tasks_blocked()
        assert house.nothing_is_held(vault)


@pytest.mark.parametrize("lane", ["interactive", "bulk"])
@pytest.mark.parametrize("ahead", [[], ["in hand"], ["in hand", "before"]])
async def test_who_gives_up_an_embedding_takes_nobody_elses(
    ahead: list[str], lane: Lane, autojump_clock: MockClock
) -> None:
    """Neither those before it in the lane nor those behind; its own place is free at once, and the lane goes on."""
    encoder = HashEmbedding()
    for attempt in every_checkpoint():
        embedded: dict[str, list[float]] = {}
        gate = Gate(closed=True)
        async with open_embedder(encoder, batch_texts_max=1, offload=gate.run) as embedder:

            async def embed(text: str, embedder: Embedder = embedder, into: dict[str, Any] = embedded) -> None:
                (row,) = await embedder.encode([text], lane=lane)
                into[text] = row.tolist()

            async def let_through(gate: Gate = gate, embedder: Embedder = embedder, attempt: Attempt = attempt) -> None:
                await wait_all_tasks_blocked()
                queued = len([*ahead, "given up", "behind"]) - gate.entered
                may_be_in_hand = not ahead
                assert embedder.statistics()[f"{lane}_waiting"] in {
                    queued - attempt.struck,
                    queued - (attempt.struck and not may_be_in_hand),
                }
                gate.open()

            async with trio.open_nursery() as others:
                for text in ahead:
                    others.start_soon(embed, text)
                    await wait_all_tasks_blocked()
                with trio.CancelScope() as scope, attempt.striking(scope.cancel, follows=lambda _: True):
                    others.start_soon(embed, "behind")
                    others.start_soon(let_through)
                    await embed("given up")
            await embed("afterwards")
            assert embedder.statistics()[f"{lane}_waiting"] == 0
        assert set(embedded) - {"given up"} == {*ahead, "behind", "afterwards"}
        assert all(row == encoder.encode([text])[0].tolist() for text, row in embedded.items())


@pytest.mark.parametrize("known", [1, 20])
async def test_an_actor_may_be_ended_at_any_checkpoint(known: int, autojump_clock: MockClock) -> None:
    """As by the deadline of the drain: while it hydrates, takes in, embeds, or writes. The next one goes on."""
    texts = [f"known {number:02}" for number in range(known)]
    for attempt in every_checkpoint():
        async with open_house() as house:
            vault = await house.new_vault()
            await house.store.accept_nowait(vault, [exchange(text) for text in texts], lambda _: None).wait_durable()
            name = f"vault {vault.number}"

            def end(house: House = house, vault: VaultRef = vault) -> None:
                entry = house.supervisor._entries[vault.number]
                entry.close()
                entry.scope.cancel()

            def follows(task: Task, name: str = name) -> bool:
                return any(ancestor.name == name for ancestor in lineage(task))

            with attempt.striking(end, follows=follows):
                with suppress(VaultUnavailable), await house.supervisor.pin(vault) as pin:
                    receipt = pin.submit([exchange("said meanwhile")])
                    await receipt.wait_durable()
                    await receipt.wait_applied(timeout_s=60)
                await wait_all_tasks_blocked()
            assert await house.found(vault) == [*texts, "said meanwhile"]
            await wait_all_tasks_blocked()
            assert house.stored(vault) == [*texts, "said meanwhile"]
            assert house.inbox(vault) == 0
            assert (await house.stats(vault)).pending == 0
            assert house.nothing_is_held(vault)
            assert house.supervisor.statistics()["crashed"] == 0
