"""Does a question that leans on the one before it find what it asks for? Offline, with the product's ranking.

    python -m bench.follow_ups locomo.json beam.json --cache DIR [--every N]

Reads files as `bench.recall_quality` does and derives conversations by rule. Of two questions about the same vault that
share a word, with different answers, the first is asked and answered (by the beginning of its gold turn), and the
second follows in three forms: *pronoun*, each run of shared words replaced by "that" ("they" for names); *ellipsis*,
"What about" and the words that are its own; *shift*, as it stands behind a question that shares no word with it, which
context can only harm. Each form is searched by its own words alone, with those of the first question, with those of the
answer too (which the vault holds word for word: the worst case), as the product does it, and, for comparison, by the
second question as it stood.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC
from typing import Literal

import msgspec

from actors.vault import Vault
from bench._examples import open_vault, read
from bench._options import data_options, run_benchmark
from bench._results import Table
from bench.recall_quality import Answer, Question, VaultData, figures
from models.embedding import EmbeddingModel, open_embedding_model
from models.messages import Scope, Search
from models.time_intervals import time_intervals
from models.words import terms
from router.providers.base import Turn
from router.questions import Asked, asked_of, plainly

LIMIT = 60
REPLY_CHARACTERS_MAX = 300
EARLIER_MAX = 12
"""Questions before one that are tried as the one that it follows."""

_PERSONS = frozenset(terms("I me my mine we us our you your"))
_WORD = re.compile(r"[\w'\u2019-]+")
_METRICS = ("n", "any@1", "any@5", "any@10", "MRR")

Form = Literal["pronoun", "ellipsis", "shift"]


class FollowUp(msgspec.Struct, frozen=True):
    """A derived conversation.

    Attributes:
        turns: the first question, its answer, and the follow-up.
        whole: the follow-up as it stood in the data.
    """

    form: Form
    turns: tuple[Turn, ...]
    whole: Question


def measure(chosen: argparse.Namespace) -> Iterator[Table]:
    """Each form of each set under each way to ask."""
    encoder = open_embedding_model(chosen.cache / "models", threads=1)
    for path in chosen.data:
        answers: dict[tuple[str, str], list[Answer]] = defaultdict(list)
        for data in read(path):
            opened = open_vault(data, encoder, chosen.cache)
            vault, places, end_ms = opened.vault, opened.places, opened.end_ms
            for follow_up in follow_ups(data, chosen.every):
                gold = [places[str(turn)] + 1 for turn in follow_up.whole.gold if str(turn) in places]
                for name, asked in ways(follow_up).items():
                    seqs = found(vault, asked, encoder, end_ms)
                    ranks = [seqs.index(seq) + 1 if seq in seqs else None for seq in gold]
                    answers[follow_up.form, name].append(Answer(category="", places=ranks, latency_ms=0.0))
        rows = {f"{form}, {name}": figures(of_it) for (form, name), of_it in sorted(answers.items())}
        yield Table(path.name, {name: {metric: row[metric] for metric in _METRICS} for name, row in rows.items()})


def ways(follow_up: FollowUp) -> dict[str, Asked]:
    """What is searched for, by the name of the way."""
    turns = follow_up.turns
    return {
        "0 last turn alone": plainly(turns[-1].text),
        "1 both turns of the user": plainly("\n".join(turn.text for turn in turns if turn.role == "user")),
        "2 all three turns": plainly("\n".join(turn.text for turn in turns)),
        "3 product": asked_of(turns),
        "4 the question as it stood": plainly(follow_up.whole.question),
    }


def found(vault: Vault, asked: Asked, encoder: EmbeddingModel, end_ms: int) -> list[int]:
    """The seqs of the memories found, best first."""
    search = Search(
        text=asked.words,
        vector=encoder.encode([asked.meaning])[0].astype("<f4").tobytes(),
        scope=Scope(),
        limit=LIMIT,
        now_ms=end_ms,
        intervals=time_intervals(asked.text, now_ms=end_ms, tz=UTC),
    )
    return [hit.memory.seq for hit in vault.search(search).hits]


def options(parser: argparse.ArgumentParser) -> None:
    data_options(parser, every="use the follow-ups to each n-th question only")


# Deriving.


def follow_ups(data: VaultData, every: int = 1) -> Iterator[FollowUp]:
    """The conversations that the questions of a vault give."""
    contents = {str(turn.id): turn.content for turn in data.turns}
    asked = [question for question in data.questions if any(str(turn) in contents for turn in question.gold)]
    for number, second in list(enumerate(asked))[::every]:
        earlier = asked[max(0, number - EARLIER_MAX) : number][::-1]
        sharing = [first for first in earlier if shared(first, second) and not set(first.gold) & set(second.gold)]
        apart = [first for first in earlier if not shared(first, second) and not set(first.gold) & set(second.gold)]
        forms: tuple[tuple[Form, list[Question]], ...] = (("pronoun", sharing), ("ellipsis", sharing), ("shift", apart))
        for form, firsts in forms:
            if firsts and (text := followed(form, firsts[0], second)):
                reply = next(contents[str(turn)] for turn in firsts[0].gold if str(turn) in contents)
                turns = (
                    Turn(role="user", text=firsts[0].question),
                    Turn(role="assistant", text=reply[:REPLY_CHARACTERS_MAX]),
                    Turn(role="user", text=text),
                )
                yield FollowUp(form=form, turns=turns, whole=second)


def shared(first: Question, second: Question) -> set[str]:
    """The terms of both questions, but for those that say who is speaking."""
    return (set(terms(first.question)) & set(terms(second.question))) - _PERSONS


def followed(form: str, first: Question, second: Question) -> str:
    """The second question as it follows the first; "" where it would say nothing of its own."""
    common = shared(first, second)
    words = _WORD.findall(second.question)
    own = [word for word in words if set(terms(word)) - common - _PERSONS]
    if form == "shift":
        return second.question
    if not own:
        return ""
    if form == "ellipsis":
        return f"What about {' '.join(own)}?"
    return pronouns_for(second.question, common)


def pronouns_for(text: str, common: set[str]) -> str:
    """A question with each run of these terms replaced by a pronoun."""
    result: list[str] = []
    for word in text.split():
        is_common = bool(set(terms(word)) & common)
        pronoun = ("they" if word[:1].isupper() and result else "that") + ("?" if word.endswith("?") else "")
        if not is_common:
            result.append(word)
        elif not (result and result[-1] in ("they", "that")):
            result.append(pronoun)
    return " ".join(result)


if __name__ == "__main__":
    sys.exit(run_benchmark(measure, __doc__, options, quick={"every": 20}))
