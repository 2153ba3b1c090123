"""A caller may leave at any checkpoint: nothing that it held stays behind, and the vault goes on.

Each operation runs again and again, cancelled at its first checkpoint, its second, its third, until it gets through.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from models.ids import VaultRef
from models.messages import Forget, Stats
from tests.actors.house import House, exchange, open_house

CHECKPOINTS_MAX = 200

Operation = Callable[[House, VaultRef], Awaitable[None]]


class CancelAt(trio.abc.Instrument):
    """Cancels a scope when the task that entered it stops at its n-th checkpoint."""

    def __init__(self, scope: trio.CancelScope, *, checkpoint: int) -> None:
        self._scope = scope
        self._left = checkpoint
        self._task = trio.lowlevel.current_task()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._left -= 1
            if self._left == 0:
                self._scope.cancel()


async def cancelled_at(checkpoint: int, operation: Operation, house: House, vault: VaultRef) -> bool:
    """Run an operation until it stops at this checkpoint; False when it has ended before."""
    with trio.CancelScope() as scope:
        instrument = CancelAt(scope, checkpoint=checkpoint)
        trio.lowlevel.add_instrument(instrument)
        try:
            await operation(house, vault)
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancel_called


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
    checkpoint = 0
    cancelled = True
    while cancelled:
        checkpoint += 1
        assert checkpoint < CHECKPOINTS_MAX
        async with open_house() as house:
            vault = await house.new_vault()
            await house.store.accept_nowait(vault, [exchange("known")], lambda _: None).wait_durable()
            if warm:
                await house.stats(vault)
                await wait_all_tasks_blocked()
            cancelled = await cancelled_at(checkpoint, operation, house, vault)
            await wait_all_tasks_blocked()
            texts = await house.found(vault)
            assert texts in (["known"], ["known", "said while leaving"])
            assert (await house.remember(vault, "said afterwards")).stored == 1
            await wait_all_tasks_blocked()
            assert house.nothing_is_held(vault)
            assert house.stored(vault) == [*texts, "said afterwards"]
            assert house.supervisor.statistics()["crashed"] == 0
    assert checkpoint > 1


@pytest.mark.parametrize("warm", [True, False])
async def test_an_erasure_is_whole_or_not_begun_wherever_its_caller_leaves(
    warm: bool, autojump_clock: MockClock
) -> None:
    checkpoint = 0
    cancelled = True
    while cancelled:
        checkpoint += 1
        assert checkpoint < CHECKPOINTS_MAX
        async with open_house() as house:
            vault = await house.new_vault()
            if warm:
                await house.remember(vault, "a secret")
                await wait_all_tasks_blocked()

            async def erase(house: House, vault: VaultRef) -> None:
                await house.supervisor.erase(vault)

            cancelled = await cancelled_at(checkpoint, erase, house, vault)
            erased = vault.number not in house.store.disk.vaults
            assert erased == (house.supervisor.current(vault) != vault)
            assert await house.found(vault) == (["a secret"] if warm and not erased else [])
            assert (await house.remember(vault, "said afterwards")).stored == 1
            await wait_all_tasks_blocked()
            assert house.nothing_is_held(house.supervisor.current(vault))
    assert checkpoint > 1


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
