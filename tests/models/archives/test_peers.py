"""mem0 and Zep: their memories, messages and facts, with whose they are."""

from __future__ import annotations

from models.archives.entries import Item
from models.archives.peers import is_mem0, is_zep, read_mem0, read_zep
from tests.models.archives.found import lines, reasons, said

MEM0 = {
    "id": "892db2ae-06d9-49e5-8b3e-585ef9b85b8e",
    "memory": "Likes tea",
    "hash": "x",
    "metadata": {"topic": "drinks"},
    "created_at": "2024-07-20T01:30:36.275141-07:00",
    "updated_at": None,
    "user_id": "anna",
    "run_id": "r1",
}
ZEP_MESSAGE = {
    "uuid": "z1",
    "created_at": "2024-05-10T14:34:16.714Z",
    "role": "anna",
    "role_type": "user",
    "content": "I like tea",
    "token_count": 4,
}


def test_a_memory_of_mem0_becomes_a_statement_of_its_user() -> None:
    (item,) = [entry for entry in read_mem0(MEM0, "here") if isinstance(entry, Item)]

    assert item.owner == "anna"
    assert item.fields == {
        "role": "user",
        "content": "Likes tea",
        "timestamp": 1_721_464_236_275,
        "session_id": "mem0:r1",
        "id": "mem0:892db2ae-06d9-49e5-8b3e-585ef9b85b8e",
        "metadata": {"source": "mem0", "metadata": {"topic": "drinks"}},
    }


def test_a_page_of_mem0_holds_many() -> None:
    page = {"count": 3, "results": [MEM0, {**MEM0, "memory": ""}, {**MEM0, "id": 2, "memory": "Lives in Kiel"}]}

    assert is_mem0(page)
    assert said(read_mem0(page, "here")) == [("user", "Likes tea"), ("user", "Lives in Kiel")]
    assert reasons(read_mem0(page, "here")) == {"empty": 1}


def test_messages_of_a_zep_session_are_what_was_said() -> None:
    page = {
        "session_id": "s",
        "user_id": "anna",
        "messages": [
            ZEP_MESSAGE,
            {**ZEP_MESSAGE, "uuid": "z2", "role_type": "assistant", "content": "Noted"},
            {**ZEP_MESSAGE, "uuid": "z3", "role_type": "tool", "content": "{}"},
            {**ZEP_MESSAGE, "uuid": "z4", "role_type": "system", "content": "Be brief"},
        ],
        "row_count": 4,
    }

    entries = list(read_zep(page, "here"))

    assert is_zep(page)
    assert said(entries) == [("user", "I like tea"), ("assistant", "Noted")]
    assert reasons(entries) == {"tool": 1, "system": 1}
    assert lines(entries)[0]["session_id"] == "zep:s"
    assert lines(entries)[0]["id"] == "zep:z1"
    assert lines(entries)[0]["timestamp"] == 1_715_351_656_714
    assert {entry.owner for entry in entries if isinstance(entry, Item)} == {"anna"}


def test_facts_of_zep_that_no_longer_hold_are_left_out() -> None:
    facts = {
        "facts": [
            {"uuid": "f1", "fact": "Anna lives in Kiel", "created_at": "2024-05-10T14:34:16Z"},
            {"uuid": "f2", "content": "Anna lives in Ulm", "created_at": "2023-05-10T14:34:16Z", "invalid_at": "2024"},
            {"uuid": "f3", "content": "", "created_at": "2023-05-10T14:34:16Z"},
        ]
    }

    assert is_zep(facts)
    assert said(read_zep(facts, "here")) == [("user", "Anna lives in Kiel")]
    assert reasons(read_zep(facts, "here")) == {"outdated": 1, "empty": 1}


def test_a_fact_or_a_message_alone_is_read() -> None:
    assert said(read_zep(ZEP_MESSAGE, "here")) == [("user", "I like tea")]
    assert is_zep(ZEP_MESSAGE)
    assert is_zep({"fact": "x"})
