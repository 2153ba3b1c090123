"""A row of the routing table: when its vault may leave memory without disturbing anybody."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.entry import Entry
from actors.inbox_lag import InboxLag
from actors.mailbox import Mailbox
from actors.restart import RestartPolicy
from models.ids import VaultNumber, VaultRef
from models.messages import Barrier
from tests.actors.house import Gate, open_house
from tests.patience import PATIENCE_S


def new_entry() -> Entry:
    mailbox = Mailbox(messages_max=2, reserved_max=2)
    lag = InboxLag(messages_max=2, bytes_max=1_000)
    return Entry(VaultRef(VaultNumber(1), 0), mailbox, lag, RestartPolicy(restarts_max=3, window_s=5))


def test_a_vault_that_has_yet_to_start_is_not_idle() -> None:
    assert not new_entry().idle


def test_a_resting_vault_is_idle_unless_somebody_holds_a_place() -> None:
    entry = new_entry()
    entry.quarantined_until_s = 30.0
    assert entry.idle
    place = entry.mailbox.reserve_nowait()
    assert not entry.idle
    place.release()
    assert entry.idle


async def test_closing_is_final_and_closes_the_mailbox() -> None:
    entry = new_entry()
    entry.quarantined_until_s = 30.0
    entry.close()
    entry.close()
    assert entry.closed.is_set()
    assert not entry.idle
    with pytest.raises(trio.ClosedResourceError):
        await entry.mailbox.ask(Barrier(), timeout_s=PATIENCE_S)


async def test_a_live_vault_is_idle_when_nothing_waits_and_nothing_is_left_to_do(autojump_clock: MockClock) -> None:
    gate = Gate(closed=True)
    async with open_house(gate=gate) as house:
        vault = await house.new_vault()
        await house.stats(vault)
        entry = house.supervisor._entries[vault.number]
        assert entry.idle
        with await house.supervisor.pin(vault):
            assert not entry.idle
        assert entry.idle
        await house.remember(vault, "an apple")
        assert not entry.idle  # its text is being embedded
        gate.open()
        await wait_all_tasks_blocked()
        assert entry.idle
