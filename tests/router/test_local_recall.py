"""The built-in model quotes the best memory first, word for word."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from router.local_recall import ITEMS_MAX, NOTHING_FOUND, RecalledItem, reply_text

_DOG = RecalledItem(text="My dog is called Rex.", role="user", when="Wed, Jun 3", timestamp_ms=3)
_CAT = RecalledItem(text="I also have\na cat.", role="user", when="Fri, Jun 5", timestamp_ms=5)
_TIP = RecalledItem(text="Walk Rex twice a day.", role="assistant", when="Mon, Jun 1", timestamp_ms=1)


def test_one_memory_is_one_sentence() -> None:
    """Who said it, when, and the words."""
    assert reply_text([_DOG]) == 'You told me on Wed, Jun 3: "My dog is called Rex."'
    assert reply_text([_TIP]) == 'I told you on Mon, Jun 1: "Walk Rex twice a day."'


def test_no_memory_is_said_honestly() -> None:
    """No invention."""
    assert reply_text([]) == NOTHING_FOUND


def test_the_best_comes_first_and_the_newest_is_marked() -> None:
    """Others follow in the given order."""
    assert reply_text([_DOG, _TIP, _CAT]).split("\n") == [
        'You told me on Wed, Jun 3: "My dog is called Rex."',
        "",
        "Also in your memories:",
        '- Mon, Jun 1, I said: "Walk Rex twice a day."',
        '- Fri, Jun 5, the newest, you said: "I also have a cat."',
    ]
    assert reply_text([_CAT, _TIP]).startswith(
        'You told me on Fri, Jun 5: "I also have\na cat." (the newest on this)\n'
    )


def test_repeated_and_endless_memories_do_not_fill_the_reply() -> None:
    """Equal texts count once, others are shortened, and the list ends."""
    repeated = RecalledItem(text=" my DOG is called Rex. ", role="user", when="Tue", timestamp_ms=2)
    many = [RecalledItem(text=f"{n} " + "x" * 5000, role="user", when="Tue", timestamp_ms=n) for n in range(20)]

    assert reply_text([_DOG, repeated]) == reply_text([_DOG])
    assert reply_text([_DOG, *many]).count("\n- ") == ITEMS_MAX - 1
    assert len(reply_text([_DOG, *many])) < 2000


@given(st.text())
def test_the_best_memory_is_verbatim(text: str) -> None:
    """Whatever it holds."""
    item = RecalledItem(text=text, role="user", when="Tue", timestamp_ms=1)

    assert reply_text([item, _DOG]).startswith(f'You told me on Tue: "{text}"')
