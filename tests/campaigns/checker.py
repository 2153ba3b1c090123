"""What a server has acknowledged, and what is wrong with what it holds after a restart.

`Acknowledged` is the model: every text that clients have sent, with the span of each attempt to store it and of each
deletion, in ticks of one counter. It knows no server: a campaign tells it what clients did and saw, then compares it
with what each vault holds. An attempt whose acknowledgement nobody saw may have had its effect or not, but not half of
it, and not twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec

Kind = Literal["lost", "doubled", "foreign", "resurrected", "invented", "halved", "refused", "key lost"]


class Fault(msgspec.Struct, frozen=True):
    """One thing that a server got wrong.

    Attributes:
        kind: lost (acknowledged and absent), doubled, foreign (another vault's), resurrected (deleted and present),
            invented (nobody said it), halved (a part of an exchange that is stored whole), refused (stored although
            the answer said that it was not), key lost (a key that was handed out does not work).
    """

    kind: Kind
    vault: str
    text: str = ""


class Held(msgspec.Struct, frozen=True):
    """What a vault was seen to hold: the texts, and how many memories it counts (None where it cannot count).

    Two memories of the same text are one hit of a search, so only the count tells them apart.
    """

    texts: tuple[str, ...]
    memories: int | None = None


class _Span:
    """From the request to the last moment at which it can have had an effect; `ended` is None while that is open."""

    __slots__ = ("acknowledged", "began", "ended")

    def __init__(self, began: int, *, acknowledged: bool = False) -> None:
        self.began = began
        self.ended: int | None = began if acknowledged else None
        self.acknowledged = acknowledged


class _Text:
    """One text and the attempts to store it, oldest first."""

    __slots__ = ("attempts", "content", "needs", "session_id", "vault")

    def __init__(self, vault: str, content: str, session_id: str | None, needs: str | None) -> None:
        self.vault = vault
        self.content = content
        self.session_id = session_id
        self.needs = needs
        self.attempts: list[_Span] = []


class Operation:
    """One request as its client lives it; leave it as it is when nothing is known of its end."""

    __slots__ = ("_model", "contents", "span", "whole")

    def __init__(self, model: Acknowledged, span: _Span, contents: tuple[str, ...], *, whole: bool) -> None:
        self._model = model
        self.span = span
        self.contents = contents
        self.whole = whole

    def acknowledge(self) -> None:
        """The client has seen the answer that promises it."""
        if self.span.ended is None:
            self.span.ended = self._model.tick()
            self.span.acknowledged = True

    def refuse(self) -> None:
        """The client has seen an answer that says that nothing was stored."""
        self._model.withdraw(self.span, self.contents)


class _Deletion(msgspec.Struct, frozen=True):
    vault: str
    session_id: str | None
    span: _Span

    def covers(self, text: _Text) -> bool:
        """Whether it deletes this text, if that is there."""
        return self.vault == text.vault and self.session_id in {None, text.session_id}


class Acknowledged:
    """The model. Texts must be unique over all vaults: they carry their owner's mark and a number."""

    def __init__(self) -> None:
        self.vaults: list[str] = []
        self._now = 0
        self._texts: dict[str, _Text] = {}
        self._gone: dict[str, str] = {}  # texts that may not come back, with their vault
        self._refused: set[str] = set()
        self._operations: list[Operation] = []
        self._deletions: list[_Deletion] = []
        self.counters = Counter[str]()

    def tick(self) -> int:
        """The next moment."""
        self._now += 1
        return self._now

    def add_vault(self, vault: str) -> None:
        """A vault whose key was handed out."""
        self.vaults.append(vault)

    def store(
        self,
        vault: str,
        contents: Sequence[str],
        *,
        session_id: str | None = None,
        whole: bool = True,
        needs: Mapping[str, str] | None = None,
    ) -> Operation:
        """A request that stores these texts is about to be sent.

        Args:
            whole: it may only be stored as a whole.
            needs: texts (keys) that may only be there together with another one (values), such as a reply.
        """
        span = _Span(self.tick())
        for content in contents:
            text = self._texts.get(content)
            if text is None:
                text = self._texts[content] = _Text(vault, content, session_id, (needs or {}).get(content))
                self._gone.pop(content, None)
                self._refused.discard(content)
            assert text.vault == vault, "texts are unique over all vaults"
            text.attempts.append(span)
        operation = Operation(self, span, tuple(contents), whole=whole)
        self._operations.append(operation)
        return operation

    def delete(self, vault: str, *, session_id: str | None = None) -> Operation:
        """A request that deletes a vault's content, or one session of it, is about to be sent."""
        span = _Span(self.tick())
        self._deletions.append(_Deletion(vault, session_id, span))
        return Operation(self, span, (), whole=False)

    def withdraw(self, span: _Span, contents: Iterable[str]) -> None:
        """These attempts were refused: they must have had no effect."""
        for content in contents:
            text = self._texts[content]
            text.attempts.remove(span)
            if not text.attempts:
                del self._texts[content]
                self._refused.add(content)

    def live(self, vault: str) -> int:
        """About how many memories the vault holds."""
        return sum(text.vault == vault for text in self._texts.values())

    def is_required(self, operation: Operation) -> bool:
        """Whether all that this operation brought must be there now."""
        texts = [self._texts[content] for content in operation.contents]
        return all(self._required(text, self._deletions_of(text)) for text in texts)

    # What must be there, what may be there.

    def _required(self, text: _Text, deletions: Sequence[_Deletion]) -> bool:
        """An acknowledged attempt began after every deletion had ended."""
        latest = max((attempt.began for attempt in text.attempts if attempt.acknowledged), default=None)
        return latest is not None and all(
            deletion.span.ended is not None and deletion.span.ended < latest for deletion in deletions
        )

    def _allowed(self, text: _Text, deletions: Sequence[_Deletion]) -> bool:
        """No acknowledged deletion began after every attempt had ended."""
        ends = [attempt.ended for attempt in text.attempts]
        last = None if None in ends else max(end for end in ends if end is not None)
        return last is None or not any(
            deletion.span.acknowledged and deletion.span.began > last for deletion in deletions
        )

    # Comparing.

    def restart(self) -> None:
        """The process has ended: whatever was under way has had its effect by now, or never will."""
        now = self.tick()
        spans = [operation.span for operation in self._operations]
        for span in [*spans, *(deletion.span for deletion in self._deletions)]:
            if span.ended is None:
                span.ended = now

    def verify(self, held: Mapping[str, Held | None]) -> list[Fault]:
        """Compare with what every vault holds, None where its key does not work. Nothing may be under way.

        What is found to be there must stay, and what is not there may not come back: the comparison settles both.
        """
        faults: list[Fault] = []
        present: set[str] = set()
        for vault in self.vaults:
            holding = held[vault]
            if holding is None:
                faults.append(Fault("key lost", vault))
            else:
                present |= set(holding.texts)
                faults += self._wrong_with(vault, holding)
        faults += [
            Fault("lost", text.vault, text.content)
            for text in self._texts.values()
            if text.content not in present and self._required(text, self._deletions_of(text))
        ]
        faults += self._halves(present)
        self._settle(present)
        return faults

    def _deletions_of(self, text: _Text) -> list[_Deletion]:
        return [deletion for deletion in self._deletions if deletion.covers(text)]

    def _wrong_with(self, vault: str, holding: Held) -> Iterator[Fault]:
        counted = Counter(holding.texts)
        yield from (Fault("doubled", vault, content) for content, count in counted.items() if count > 1)
        if holding.memories is not None and holding.memories > len(holding.texts):
            yield Fault("doubled", vault, f"{holding.memories} memories of {len(holding.texts)} texts")
        if holding.memories is not None and holding.memories < len(holding.texts):
            yield Fault("invented", vault, f"{holding.memories} memories, but {len(holding.texts)} texts")
        for content in counted:
            text = self._texts.get(content)
            if text is None:
                owner = self._gone.get(content)
                missing: Kind = "refused" if content in self._refused else "invented"
                yield Fault("resurrected" if owner == vault else missing, vault, content)
            elif text.vault != vault:
                yield Fault("foreign", vault, content)
            elif not self._allowed(text, self._deletions_of(text)):
                yield Fault("resurrected", vault, content)

    def _halves(self, present: set[str]) -> Iterator[Fault]:
        """Operations of which a part is there. Texts that more than one attempt brought prove nothing."""
        for operation in self._operations:
            single = [
                text
                for content in operation.contents
                if (text := self._texts.get(content)) is not None and len(text.attempts) == 1
            ]
            there = [text for text in single if text.content in present]
            if operation.whole and there and len(there) < len(single):
                yield Fault("halved", there[0].vault, f"{len(there)} of {len(single)}: {there[0].content}")
            for text in there:
                needed = self._texts.get(text.needs) if text.needs is not None else None
                if needed is not None and needed.content not in present:
                    yield Fault("halved", text.vault, f"without what it answers: {text.content}")

    def _settle(self, present: set[str]) -> None:
        now = self.tick()
        for content, text in list(self._texts.items()):
            if content in present:
                text.attempts = [_Span(now, acknowledged=True)]
            else:
                del self._texts[content]
                self._gone[content] = text.vault
        self._operations = []
        self._deletions = []
        self.counters["verified"] += len(present)
