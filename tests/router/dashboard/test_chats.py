"""What is kept of chats: by session, bounded, and gone with the session or with what they quote."""

from __future__ import annotations

from models.ids import VaultNumber, VaultRef
from router.dashboard.chats import CHATS_OF_SESSION_MAX, Chats, ChatWatch
from router.recalling import Recollection

FIRST, SECOND = (VaultRef(number=VaultNumber(number), shard=0) for number in (1, 2))


def recalled(watch: ChatWatch, block: str) -> None:
    watch.recalled(Recollection(context=block, ids=("mem_1",)), status="ok", mode="on", stores=True)


def test_a_chat_is_found_by_its_own_session_alone() -> None:
    chats = Chats()
    watch = chats.begin(1, "req_a", FIRST)
    assert chats.find(1, "req_a") is watch
    assert chats.find(2, "req_a") is None
    assert chats.find(1, "req_b") is None


def test_a_session_keeps_its_last_ones() -> None:
    chats = Chats()
    chats.begin(2, "of another", FIRST)
    for number in range(CHATS_OF_SESSION_MAX + 10):
        chats.begin(1, f"req_{number}", FIRST)
    assert chats.find(1, "req_9") is None
    assert chats.find(1, "req_10") is not None
    assert chats.find(2, "of another") is not None
    assert len(chats) == CHATS_OF_SESSION_MAX + 1


def test_all_together_are_bounded_by_what_they_hold() -> None:
    chats = Chats(characters_max=10_000)
    for number in range(10):
        recalled(chats.begin(number, "req", FIRST), "x" * 3_000)
    assert len(chats) <= 4
    assert chats.find(9, "req") is not None


def test_they_go_with_their_session_and_with_their_vault() -> None:
    chats = Chats()
    for session, vault in ((1, FIRST), (2, FIRST), (2, SECOND)):
        chats.begin(session, f"req_{vault.number}", vault)
    chats.forget_session(1)
    assert len(chats) == 2
    chats.forget_vault(FIRST)
    assert [chats.find(2, "req_1"), chats.find(2, "req_2") is not None] == [None, True]


def test_a_watch_tells_how_far_storing_got() -> None:
    watch = ChatWatch(FIRST)
    assert watch.stored_status == "off"
    recalled(watch, "block")
    assert (watch.stored_status, watch.block, watch.memory_ids) == ("pending", "block", ("mem_1",))
    watch.handed_over(0)
    assert watch.stored_status == "nothing_new"
    watch.handed_over(2)
    assert (watch.stored_status, watch.messages_max) == ("handed_over", 2)
    watch.not_stored("storage_full")
    assert (watch.status, watch.stored_status) == ("not_stored", "storage_full")
