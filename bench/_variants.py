"""The same questions about vaults that look otherwise: no sessions, no roles, no times, few memories, long turns.

Owns these rules; each takes the vaults of a file and gives vaults of the same form. Weights that were fitted on two
styles of conversation must hold for others, so they are also fitted on some of these, and measured on all.
"""

from __future__ import annotations

import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator

import msgspec

from bench.recall_quality import Question, Turn, VaultData

_NAME = re.compile(r"^[A-Z]\w+: ")
_QUESTION_WORDS = re.compile(
    r"\b(?:what|when|where|who|whom|whose|which|why|how|did|does|do|is|are|was|were|has|have|had|can|could|would|will"
    r"|should)\b|\?",
    re.IGNORECASE,
)

Variant = Callable[[list[VaultData]], list[VaultData]]


def of_turns(change: Callable[[Turn, VaultData], Turn]) -> Variant:
    """Every turn changed by itself."""

    def variant(vaults: list[VaultData]) -> list[VaultData]:
        return [msgspec.structs.replace(vault, turns=[change(turn, vault) for turn in vault.turns]) for vault in vaults]

    return variant


one_session = of_turns(lambda turn, vault: msgspec.structs.replace(turn, session="all"))
alone = of_turns(lambda turn, vault: msgspec.structs.replace(turn, session=str(turn.id)))
one_role = of_turns(lambda turn, vault: msgspec.structs.replace(turn, role="user"))
one_time = of_turns(lambda turn, vault: msgspec.structs.replace(turn, timestamp=vault.turns[0].timestamp))
no_times = of_turns(lambda turn, vault: msgspec.structs.replace(turn, timestamp=None))
no_names = of_turns(lambda turn, vault: msgspec.structs.replace(turn, content=_NAME.sub("", turn.content)))


def shuffled(vaults: list[VaultData]) -> list[VaultData]:
    """The turns in any order, without times, which would tell the order."""
    orders = [random.Random(vault.vault).sample(vault.turns, len(vault.turns)) for vault in vaults]
    return no_times([msgspec.structs.replace(vault, turns=turns) for vault, turns in zip(vaults, orders, strict=True)])


def notes(vaults: list[VaultData]) -> list[VaultData]:
    """Notes in any order: no sessions, roles, times and names."""
    return no_names(one_role(one_session(shuffled(vaults))))


def users_only(vaults: list[VaultData]) -> list[VaultData]:
    """The turns of users alone, and what they answer."""
    return [_kept(vault, [turn for turn in vault.turns if turn.role == "user"]) for vault in vaults]


def keywords(vaults: list[VaultData]) -> list[VaultData]:
    """Questions without question words and question marks."""

    def bare(question: Question) -> Question:
        text = " ".join(_QUESTION_WORDS.sub(" ", question.question).split())
        return msgspec.structs.replace(question, question=text or question.question)

    return [msgspec.structs.replace(vault, questions=[bare(one) for one in vault.questions]) for vault in vaults]


def windows(size: int) -> Variant:
    """Vaults of so many turns each, with the questions that they answer wholly."""

    def variant(vaults: list[VaultData]) -> list[VaultData]:
        return [window for vault in vaults for window in _windows(vault, size)]

    return variant


def joined(count: int) -> Variant:
    """So many turns of a session in one long one."""
    return lambda vaults: [_joined(vault, count) for vault in vaults]


def _kept(vault: VaultData, turns: list[Turn]) -> VaultData:
    kept = {str(turn.id) for turn in turns}
    questions = []
    for question in vault.questions:
        gold = [turn for turn in question.gold if str(turn) in kept]
        if gold:
            questions.append(msgspec.structs.replace(question, gold=gold))
    return msgspec.structs.replace(vault, turns=turns, questions=questions)


def _windows(vault: VaultData, size: int) -> Iterator[VaultData]:
    for start in range(0, len(vault.turns), size):
        turns = vault.turns[start : start + size]
        inside = {str(turn.id) for turn in turns}
        questions = [one for one in vault.questions if one.gold and all(str(turn) in inside for turn in one.gold)]
        if questions:
            yield msgspec.structs.replace(vault, turns=turns, questions=questions)


def _joined(vault: VaultData, count: int) -> VaultData:
    sessions: dict[str, list[Turn]] = defaultdict(list)
    for turn in vault.turns:
        sessions[str(turn.session)].append(turn)
    turns, place = [], {}
    for session in sessions.values():
        for start in range(0, len(session), count):
            group = session[start : start + count]
            place.update({str(turn.id): str(group[0].id) for turn in group})
            turns.append(msgspec.structs.replace(group[0], content="\n".join(turn.content for turn in group)))
    questions = [
        msgspec.structs.replace(
            one, gold=list(dict.fromkeys(place[str(turn)] for turn in one.gold if str(turn) in place))
        )
        for one in vault.questions
    ]
    return msgspec.structs.replace(vault, turns=turns, questions=questions)


AS_IT_IS = "as it is"

VARIANTS: dict[str, Variant] = {
    AS_IT_IS: lambda vaults: vaults,
    "one session": one_session,
    "each turn a session": alone,
    "one role": one_role,
    "one time": one_time,
    "no times": no_times,
    "no names of speakers": no_names,
    "turns of users alone": users_only,
    "any order": shuffled,
    "any order, one session": lambda vaults: one_session(shuffled(vaults)),
    "notes: no sessions, roles, times, names, order": notes,
    "vaults of 10 turns": windows(10),
    "vaults of 50 turns": windows(50),
    "vaults of 50, each turn a session": lambda vaults: alone(windows(50)(vaults)),
    "4 turns in one": joined(4),
    "4 turns in one, each a session": lambda vaults: alone(joined(4)(vaults)),
    "12 turns in one": joined(12),
    "no question words": keywords,
}

FITTED = (
    "each turn a session", "any order, one session", "no names of speakers", "turns of users alone", "4 turns in one",
    "vaults of 50 turns",
)  # fmt: skip
"""Those that weights are fitted on too."""
