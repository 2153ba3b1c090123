"""A worker: one of several processes that serve one data directory on one port, as the house in it sees its place.

Owns what is told to the parent and heard of it, and the file at which the other workers reach this one. The parent is
`router.workers`. Must never outlive the parent for longer than its requests need: the end of the link is the order to
stop.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager, suppress
from functools import partial
from pathlib import Path

import trio

from actors.cluster.workers import Share
from models.errors import SetupError
from router.forwarding import UNIX
from router.handing_over import HandedConnections, HandingOver, Keys
from router.listening import BoundAddress
from router.observe import log_event
from router.server import BACKLOG, SecondEntrance
from router.unix_sockets import OwnSocket
from router.worker_link import (
    SENTENCE_CHARACTERS_MAX,
    AccountMade,
    Beat,
    Drained,
    Link,
    Opened,
    Order,
    Refused,
    Renew,
    Serving,
    State,
    Stop,
    connections_path,
    decode_to_worker,
    socket_name,
    socket_path,
)

BEAT_INTERVAL_S = 1.0


class Worker:
    """This process among its siblings.

    Attributes:
        share: what of the data directory is this worker's.
        listening: the public socket, which all workers accept from.
        restarts: how often each worker was started again, as the parent counts.
    """

    def __init__(self, share: Share, *, data_dir: Path, listening: socket.socket, link: Link) -> None:
        self.share = share
        self.listening = listening
        self.restarts: tuple[int, ...] = (0,) * share.count
        self._data_dir = data_dir
        self._link = link
        self._alive: frozenset[int] = frozenset()
        self._admitted = trio.Event()
        self._stopping = trio.Event()
        self._parent_gone = trio.Event()
        self._renewals, self._renewed = trio.open_memory_channel[None](1)

    @classmethod
    def of(cls, order: Order) -> Worker:
        """By the order that it was started with."""
        return cls(
            Share(order.index, order.count),
            data_dir=Path(order.data_dir),
            listening=socket.socket(fileno=order.listening),
            link=Link(socket.socket(fileno=order.link)),
        )

    def close(self) -> None:
        """Hang up."""
        self._link.close()

    # What others know of the workers.

    @property
    def is_first(self) -> bool:
        """Whether this one does what is to be done once for all of them."""
        return self.share.index == 0

    def address_of(self, worker: int) -> str:
        """At which a worker is reached by the others."""
        return f"{UNIX}{socket_name(worker)}"

    def alive(self, worker: int) -> bool:
        """Whether a worker serves, as the parent has said."""
        return worker in self._alive

    # What the parent says.

    async def listen(self) -> None:
        """Take what the parent says, until it is gone."""
        while data := await self._link.receive():
            match decode_to_worker(data):
                case State(alive, restarts):
                    self._alive, self.restarts = frozenset(alive), restarts
                    self._admitted.set()
                case Renew():
                    self._ask_for_renewal_nowait()
                case Stop():
                    self._stopping.set()
                    self._admitted.set()  # nobody waits for what will not come
        for event in (self._parent_gone, self._stopping, self._admitted):
            event.set()

    def _ask_for_renewal_nowait(self) -> None:
        with suppress(trio.WouldBlock):  # one is due, and will read what is there then
            self._renewals.send_nowait(None)

    async def wait_stop(self) -> None:
        """Wait until the parent says so, or is gone."""
        await self._stopping.wait()

    @contextmanager
    def open_renewals(self) -> Iterator[AsyncIterator[object]]:
        """An item for each time that the certificate is to be read again."""
        yield self._renewed

    # What it is told.

    async def beat(self) -> None:
        """Say that the loop goes round, until cancelled."""
        while True:
            self._link.send_nowait(Beat())
            await trio.sleep(BEAT_INTERVAL_S)

    def announce(self, key: str) -> None:
        """Let the parent show the account key of the first start."""
        self._link.send_nowait(AccountMade(key))

    def refuse(self, error: SetupError) -> None:
        """Let the parent say what keeps this worker from serving."""
        self._link.send_nowait(Refused(*(line[:SENTENCE_CHARACTERS_MAX] for line in (error.message, error.hint))))

    async def wait_admitted(self) -> None:
        """Say that everything is open, and wait until the others have come as far: nobody is to wait for them."""
        self._link.send_nowait(Opened())
        await self._admitted.wait()

    def tell_serving(self, address: BoundAddress) -> None:
        """Say that requests are served."""
        log_event("worker_serving", url=address.url)
        self._link.send_nowait(Serving())

    def other_owner(self, part: int) -> int | None:
        """The worker that owns a shard, if it is another one, and serves; none once the end has begun.

        A worker closes when nobody has a client any more, and what is on its way to it then would be lost.
        """
        if self._stopping.is_set():
            return None
        owner = self.share.owner_of(part)
        return owner if owner != self.share.index and self.alive(owner) else None

    @asynccontextmanager
    async def open_entrance(
        self, *, connections_max: int, drain_s: float, keys: Keys | None, handed_over: Callable[[], object]
    ) -> AsyncIterator[SecondEntrance]:
        """Where the other workers come in, for the length of the block. It is open until none of them has a client.

        Args:
            connections_max: of each worker.
            drain_s: how long they may take for that.
            keys: whose vaults are known; None if clients' connections are to stay where they came.
            handed_over: is told of each connection that goes to another worker.

        Raises:
            SetupError: the socket cannot be made.
        """
        path_of = partial(connections_path, self._data_dir)
        path = socket_path(self._data_dir, self.share.index)
        with ExitStack() as stack:
            own = await trio.to_thread.run_sync(partial(OwnSocket, path, backlog=BACKLOG, noun="worker's socket"))
            stack.callback(own.close)
            handed = await trio.to_thread.run_sync(HandedConnections, path_of(self.share.index))
            stack.callback(handed.close)
            hand_over = None
            if keys is not None:
                handing = HandingOver(keys, owner_of=self.other_owner, path_of=path_of, handed_over=handed_over)
                hand_over = stack.enter_context(closing(handing)).hand_over
            yield SecondEntrance(
                listening=own.listening,
                connections_max=connections_max * self.share.count,
                handed=handed,
                handed_max=connections_max,
                hand_over=hand_over,
                wait_unneeded=partial(self._wait_unneeded, drain_s),
            )

    async def _wait_unneeded(self, drain_s: float) -> None:
        """Say that no client of this one is left, and wait until the parent hangs up, since none of the others has."""
        self._link.send_nowait(Drained())
        with trio.move_on_after(drain_s):
            await self._parent_gone.wait()
