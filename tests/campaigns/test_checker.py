"""The checker finds every fault that it names, and leaves alone what only could have gone either way."""

from __future__ import annotations

import pytest

from tests.campaigns.checker import Acknowledged, Fault, Held

VAULTS = ("anna", "ben")


@pytest.fixture
def model() -> Acknowledged:
    model = Acknowledged()
    for vault in VAULTS:
        model.add_vault(vault)
    return model


def kinds(model: Acknowledged, *, anna: tuple[str, ...] = (), ben: tuple[str, ...] = ()) -> list[str]:
    """The faults of these contents, after a restart."""
    model.restart()
    held = {"anna": Held(anna, len(anna)), "ben": Held(ben, len(ben))}
    return sorted(fault.kind for fault in model.verify(held))


def test_what_was_acknowledged_must_be_there(model: Acknowledged) -> None:
    model.store("anna", ["a"]).acknowledge()

    assert kinds(model) == ["lost"]


def test_what_was_not_acknowledged_may_be_there_or_not(model: Acknowledged) -> None:
    model.store("anna", ["a"])
    model.store("anna", ["b"])

    assert kinds(model, anna=("a",)) == []


def test_what_was_seen_once_must_stay(model: Acknowledged) -> None:
    model.store("anna", ["a"])

    assert kinds(model, anna=("a",)) == []
    assert kinds(model) == ["lost"]


def test_what_was_seen_to_be_absent_may_not_come_back(model: Acknowledged) -> None:
    model.store("anna", ["a"])

    assert kinds(model) == []
    assert kinds(model, anna=("a",)) == ["resurrected"]


def test_nothing_is_there_twice(model: Acknowledged) -> None:
    model.store("anna", ["a"]).acknowledge()
    model.store("anna", ["a"]).acknowledge()

    assert kinds(model, anna=("a", "a")) == ["doubled"]


def test_a_memory_that_no_search_shows_is_counted(model: Acknowledged) -> None:
    """A search shows one of two memories with the same text; the number of memories tells."""
    model.store("anna", ["a"]).acknowledge()
    model.restart()

    assert [fault.kind for fault in model.verify({"anna": Held(("a",), 2), "ben": Held(())})] == ["doubled"]


def test_another_vaults_text_is_foreign_and_missed_at_home(model: Acknowledged) -> None:
    model.store("anna", ["a"]).acknowledge()

    assert kinds(model, ben=("a",)) == ["foreign"]


def test_a_text_that_nobody_said_is_invented(model: Acknowledged) -> None:
    assert kinds(model, anna=("half of a rep",)) == ["invented"]


def test_an_upload_is_there_as_a_whole_or_not_at_all(model: Acknowledged) -> None:
    model.store("anna", ["a", "b"])

    assert kinds(model, anna=("a",)) == ["halved"]


def test_a_reply_is_not_there_without_its_question(model: Acknowledged) -> None:
    model.store("anna", ["question", "reply"], whole=False, needs={"reply": "question"})
    model.store("anna", ["question 2", "reply 2"], whole=False, needs={"reply 2": "question 2"})

    assert kinds(model, anna=("question", "reply 2")) == ["halved"]


def test_what_a_deletion_found_is_gone(model: Acknowledged) -> None:
    model.store("anna", ["a"], session_id="s").acknowledge()
    model.store("anna", ["b"]).acknowledge()
    model.delete("anna", session_id="s").acknowledge()

    assert kinds(model, anna=("a", "b")) == ["resurrected"]


def test_a_deletion_without_an_answer_may_have_happened_or_not(model: Acknowledged) -> None:
    model.store("anna", ["a"]).acknowledge()
    model.store("ben", ["b"]).acknowledge()
    model.delete("anna")
    model.delete("ben")

    assert kinds(model, ben=("b",)) == []


def test_what_was_stored_while_a_deletion_ran_may_be_there_or_not(model: Acknowledged) -> None:
    deletions = [model.delete(vault) for vault in VAULTS]
    model.store("anna", ["a"]).acknowledge()
    model.store("ben", ["b"]).acknowledge()
    for deletion in deletions:
        deletion.acknowledge()

    assert kinds(model, anna=("a",)) == []


def test_what_was_stored_after_a_deletion_must_be_there(model: Acknowledged) -> None:
    model.store("anna", ["a"]).acknowledge()
    model.delete("anna").acknowledge()
    model.store("anna", ["a"]).acknowledge()

    assert kinds(model) == ["lost"]


def test_an_answer_that_refuses_is_held_to_its_word(model: Acknowledged) -> None:
    model.store("anna", ["a"]).refuse()
    model.store("anna", ["b"]).refuse()

    assert kinds(model, anna=("a",)) == ["refused"]


def test_a_key_that_was_handed_out_works(model: Acknowledged) -> None:
    assert model.verify({"anna": None, "ben": Held(())}) == [Fault("key lost", "anna")]
