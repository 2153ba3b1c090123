"""Streamed chats with a cluster: what a client has seen of one is true, whatever happened to nodes meanwhile.

A reply that shows its end is whole, and it is stored, unless the node that stored it has logged that it is not: the
head of a stream has gone out long before that is known. A reply that was cut shows no end.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import trio

from tests.campaigns.checker import Acknowledged, Operation
from tests.campaigns.cluster.field import Field, Node
from tests.campaigns.echo_provider import reply_to
from tests.campaigns.load import BUSY, Misbehaved
from tests.campaigns.wire import Wire
from tests.fakes.provider import DONE
from tests.running import user

_EVENTS = frozenset({"not_stored", "exchange_handed_on", "exchange_not_handed_on"})
_PATH = "/v1/chat/completions"
_IDS = (b"x-upstream-request-id", b"x-request-id")
"""Where the request's id is by the node that answered: the first, if the request was sent on."""


class Chats:
    """Chats that have ended, until the nodes' logs can be asked what became of them.

    Attributes:
        finished: how many showed their end.
    """

    def __init__(self, field: Field, model: Acknowledged) -> None:
        self._field = field
        self._model = model
        self._ended: dict[str, Operation] = {}
        self.finished = 0

    async def stream(self, node: Node, key: str, mark: str, asked: str, *, timeout_s: float) -> str:
        """One chat, read to its end; what came of it, "finished" if it showed that.

        Raises:
            Misbehaved: it shows its end, but is not whole; or neither an end nor why there is none.
        """
        reply = reply_to(asked)
        operation = self._model.store(mark, [asked, reply], whole=False, needs={reply: asked})
        body = msgspec.json.encode({"model": "openai/m", "messages": [user(asked)], "stream": True})
        said = b""
        with trio.move_on_after(timeout_s) as waiting:
            try:
                async with await Wire.connect(httpx.URL(node.url)) as wire:
                    head = await wire.ask("POST", _PATH, [("authorization", f"Bearer {key}")], body)
                    while piece := await wire.data():
                        said += piece
            except httpx.ConnectError:
                return "no connection"
            except httpx.TransportError:
                if said.endswith(DONE):
                    self._check_whole(said, reply)
                return "torn" if said else "cut off"
        if waiting.cancelled_caught:
            return "no answer in time"
        if head.status_code in BUSY:
            return f"{head.status_code} {said.decode()}"
        if head.status_code != 200:
            raise Misbehaved(f"a chat was answered with {head.status_code} {said!r}")
        if not said.endswith(DONE):
            if b'"error"' not in said:
                raise Misbehaved(f"a chat ended properly without its end: {said!r}")
            return "broken off"
        self._check_whole(said, reply)
        self.finished += 1
        headers = dict(head.headers)
        if headers[b"x-memory-status"] != b"not_stored":
            (request_id, *_) = [headers[name].decode() for name in _IDS if name in headers]
            self._ended[request_id] = operation
        return "finished"

    def _check_whole(self, said: bytes, reply: str) -> None:
        events = [line.removeprefix(b"data: ") for line in said.split(b"\n\n") if line and b"[DONE]" not in line]
        deltas: list[Any] = [msgspec.json.decode(event)["choices"][0]["delta"] for event in events]
        text = "".join(delta.get("content") or "" for delta in deltas)
        if text != reply:
            raise Misbehaved(f"a chat shows its end after {text!r}, not {reply!r}")

    def not_stored(self) -> list[dict[str, Any]]:
        """What nodes have logged of chats that they did not store. Those that were ended have said everything."""
        return [entry for entry in self._log() if entry["event"] == "not_stored"]

    def logged(self) -> dict[str, int]:
        """How often nodes have said what became of chats."""
        return dict(Counter(entry["event"] for entry in self._log() if entry["event"] in _EVENTS))

    def _log(self) -> Iterator[dict[str, Any]]:
        return itertools.chain.from_iterable(server.log for server in self._field.servers)

    def settle(self) -> None:
        """Hold the nodes, which have ended, to their word: what they did not say not to be stored is."""
        excepted = {entry.get("request_id") for entry in self.not_stored()}
        for request_id, operation in self._ended.items():
            if request_id not in excepted:
                operation.acknowledge()
        self._ended.clear()
