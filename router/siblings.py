"""The other workers of this server: which of them live, and what this one asks them for itself.

Requests for their vaults go another way (`router.forwarding`), on the same connections. Owns the questions between
workers, which no client can ask: they need the token that only workers know, and their header is taken off whatever is
sent on. Must never wait for long for one of them, nor fail because one does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from typing import Any

import trio

from actors.cluster.workers import Share
from router.forwarding import SIBLING, TOKEN, Forwarder
from router.provider_connections import Answer, CallFailed

ANSWER_TIMEOUT_S = 1.0
ANSWER_BYTES_MAX = 16 * 1024 * 1024
"""Of an answer; a page of metrics has a few hundred kilobytes."""

PATH = "/workers/ask"
"""At which a worker asks another one; to anybody else there is nothing."""

Scope = MutableMapping[str, Any]
App = Callable[[Any, Any, Any], Awaitable[None]]


class Siblings:
    """All workers of one server, as one of them sees them.

    Attributes:
        share: this worker's.
        forwarder: the way to the others.
        restarts: how often each worker was started again, by its index.
    """

    def __init__(
        self,
        share: Share,
        *,
        forwarder: Forwarder,
        address_of: Callable[[int], str],
        alive: Callable[[int], bool],
        restarts: Callable[[], Sequence[int]],
        parts: int,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        """Make one.

        Args:
            address_of: at which a worker is reached, by its index.
            alive: whether a worker serves, as far as that is known without asking it.
            restarts: how often each worker was started again.
            parts: how many shards there are.
            answer_timeout_s: for a whole answer.
        """
        self.share = share
        self.forwarder = forwarder
        self._address_of = address_of
        self.restarts = restarts
        self._alive = alive
        self._parts = parts
        self._answer_timeout_s = answer_timeout_s

    def address_of(self, worker: int) -> str:
        """At which a worker is reached."""
        return self._address_of(worker)

    def down(self) -> list[int]:
        """Workers that do not serve now."""
        return [worker for worker in self._others() if not self._alive(worker)]

    def shards_of(self, worker: int) -> list[int]:
        """The shards that a worker owns."""
        share = Share(worker, self.share.count)
        return [part for part in range(self._parts) if share.owns(part)]

    def shown(self) -> list[dict[str, Any]]:
        """Each worker as JSON."""
        down = self.down()
        return [
            {"worker": worker, "up": worker not in down, "restarts": restarts, "shards": self.shards_of(worker)}
            for worker, restarts in enumerate(self.restarts())
        ]

    def told(self, headers: Iterable[tuple[bytes, bytes]]) -> str | None:
        """What another worker says beside a request of ASGI; None if it comes from a client, whatever that claims."""
        found = {name: value.decode("latin-1") for name, value in headers if name in _READ}
        told = found.get(_SIBLING)
        if told is None or self.forwarder.hop_of({TOKEN: found.get(_TOKEN, "")}) is None:
            return None
        return told

    async def ask_all(self, question: str) -> dict[int, bytes]:
        """The answers of all others that give one in time, by worker."""
        answers: dict[int, bytes] = {}
        down = self.down()

        async def ask(worker: int) -> None:
            answer = await self._ask(worker, question)
            if answer is not None:
                answers[worker] = answer

        async with trio.open_nursery() as asking:
            for worker in self._others():
                if worker not in down:
                    asking.start_soon(ask, worker)
        return dict(sorted(answers.items()))

    async def _ask(self, worker: int, question: str) -> bytes | None:
        """A worker's whole answer, if there is one."""
        connections = self.forwarder.connections_to(self.address_of(worker))
        headers = [self.forwarder.token_header(), (SIBLING, question)]
        with trio.move_on_after(self._answer_timeout_s):
            try:
                answer = await connections.ask("GET", PATH, headers=headers, body=b"")
            except CallFailed:
                return None
            try:
                return await _whole(answer) if answer.status == 200 else None
            finally:
                await answer.aclose()
        return None

    def _others(self) -> list[int]:
        return [worker for worker in range(self.share.count) if worker != self.share.index]


async def _whole(answer: Answer) -> bytes | None:
    """An answer's body; None if it breaks off, or is longer than any."""
    body = b""
    try:
        while piece := await answer.receive():
            body += piece
            if len(body) > ANSWER_BYTES_MAX:
                return None
    except CallFailed:
        return None
    return body


class AnswersSiblings:
    """ASGI wrapper around everything: answers what other workers ask this one, and nobody else."""

    def __init__(self, app: App, siblings: Siblings, replies: Mapping[str, Callable[[str], Awaitable[bytes]]]) -> None:
        """Make one.

        Args:
            replies: to a question by its first word; what is called gets the rest.
        """
        self._app = app
        self._siblings = siblings
        self._replies = replies

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        """Serve one ASGI connection."""
        told = None
        if scope["type"] == "http" and scope["path"] == PATH:
            told = self._siblings.told(scope["headers"])
        if told is None:
            await self._app(scope, receive, send)
            return
        name, _, rest = told.partition(" ")
        reply = self._replies.get(name)
        body = b"" if reply is None else await reply(rest)
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 404 if reply is None else 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})


_SIBLING, _TOKEN = SIBLING.encode(), TOKEN.encode()
_READ = frozenset({_SIBLING, _TOKEN})
