"""Sends load to an OpenAI-compatible server and notes what came back: closed or open loop, whole replies or streams.

Owns the sockets and the clock of a run: one thread, one epoll, non-blocking sockets, requests that are bytes already,
as an HTTP library would cost more than what is measured. Closed loop: every connection asks again as soon as it is
answered, so a slow server is asked less. Open loop: requests are due at a fixed rate whatever the server does, and a
latency counts from the moment when its request was due, also while it waited for a free connection (what is known as
being safe from coordinated omission). Never retries, but for a request on a kept connection that the server closed
unanswered.
"""

from __future__ import annotations

import gc
import select
import socket
import time
from collections import Counter, deque
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import msgspec

from bench._percentiles import curve, summary
from bench._responses import BadResponse, ResponseReader

RECEIVE_BYTES = 1 << 18
SCAN_S = 0.25
"""How often requests are looked for that had no answer in time."""

REST_S = 0.05
"""How long a connection waits before it tries again to connect."""

Request = Callable[[int], bytes]
"""The bytes of the n-th request of a run: head and body."""


class Load(msgspec.Struct, frozen=True):
    """What to send.

    Attributes:
        connections: the most at a time; each carries one request at a time.
        rate_per_s: requests that become due each second (open loop); None: closed loop.
        seconds: how long requests are sent, after the warm-up.
        warm_up_s: how long they are sent before, unrecorded.
        requests_max: of closed loop: how many are sent in all after the warm-up, if that is sooner; None: no bound.
        streams: whether answers are streams: counts events, the gaps between them, and the delay of each stamped one.
        expect: the status of a good answer; others are errors.
        mark: what the head of an answer may hold, in lower case: such answers are counted; b"": none are.
        timeout_s: an answer that takes longer is an error; also how long the end of a run waits for the last answers.
        first: the number of the first request, so that runs ask different things.
    """

    url: str
    request: Request
    connections: int = 1
    rate_per_s: float | None = None
    seconds: float = 2.0
    warm_up_s: float = 0.5
    requests_max: int | None = None
    streams: bool = False
    expect: int = 200
    mark: bytes = b""
    timeout_s: float = 30.0
    first: int = 0


class Outcome(msgspec.Struct):
    """What came back, in the order in which it did. Times in seconds.

    Attributes:
        seconds: from the end of the warm-up until requests were sent no more; with `requests_max`, to the last answer.
        answered: good answers within them, which `requests_per_s` counts.
        latencies_s: of all good answers, also of those that came after the end.
        first_bytes_s: until the first byte of the body.
        late_s: open loop: how late the generator itself was with a request for which a connection was free.
        attempts: requests sent, warm-up included.
        marked: answers among `latencies_s` whose head holds the mark.
    """

    seconds: float = 0.0
    answered: int = 0
    events: int = 0
    latencies_s: list[float] = msgspec.field(default_factory=list)
    first_bytes_s: list[float] = msgspec.field(default_factory=list)
    gaps_s: list[float] = msgspec.field(default_factory=list)
    delays_s: list[float] = msgspec.field(default_factory=list)
    late_s: list[float] = msgspec.field(default_factory=list)
    errors: dict[str, int] = msgspec.field(default_factory=dict)
    reconnects: int = 0
    attempts: int = 0
    marked: int = 0

    def row(self, *, streams: bool = False) -> dict[str, float]:
        """The figures, by name with their units."""
        figures = {"requests_per_s": round(self.answered / self.seconds, 1) if self.seconds else 0.0}
        figures |= summary(self.latencies_s)
        if streams:
            more = summary(self.first_bytes_s, "first_byte_") | summary(self.delays_s, "chunk_delay_")
            figures |= {name: value for name, value in more.items() if name.endswith(("p50_ms", "p99_ms"))}
            figures["chunks_per_s"] = round(self.events / self.seconds, 1) if self.seconds else 0.0
        if self.late_s:
            figures["generator_late_p99_ms"] = summary(self.late_s)["p99_ms"]
        return {**figures, "samples": len(self.latencies_s), "errors": sum(self.errors.values())}

    def curve(self) -> list[list[float]]:
        """Points [percent, milliseconds] of the latencies."""
        return curve(self.latencies_s)


class Arrivals:
    """When requests are due, open loop: one every 1 / rate seconds from `begin_s` on, until before `end_s`."""

    __slots__ = ("_begin_s", "_count", "_interval_s", "_number")

    def __init__(self, rate_per_s: float, begin_s: float, end_s: float) -> None:
        self._begin_s = begin_s
        self._interval_s = 1 / rate_per_s
        self._count = max(0, round((end_s - begin_s) * rate_per_s))
        self._number = 0

    @property
    def next_s(self) -> float | None:
        """When the next one is due; None after the last."""
        return self._begin_s + self._number * self._interval_s if self._number < self._count else None

    def take(self, now_s: float) -> list[float]:
        """When those were due that are due by now and have not been taken."""
        due: list[float] = []
        while (next_s := self.next_s) is not None and next_s <= now_s:
            due.append(next_s)
            self._number += 1
        return due


class _Connection:
    """A kept connection and the request on it."""

    __slots__ = ("due_s", "fd", "kept", "last_s", "number", "out", "reader", "sent_s", "sock", "waits")

    def __init__(self, *, streams: bool) -> None:
        self.sock: socket.socket | None = None
        self.fd = -1
        self.kept = False  # whether it has answered before
        self.waits = False  # until more can be written
        self.out = b""
        self.reader = ResponseReader(counts_events=streams)
        self.due_s = self.sent_s = self.last_s = 0.0
        self.number = -1  # of the request on it; -1: it is free


def run_load(load: Load) -> Outcome:
    """Send it all, and wait for the answers.

    Raises:
        ValueError: the URL is not one of plain HTTP.
        OSError: the host has no address.
    """
    parts = urlsplit(load.url)
    if parts.scheme != "http" or not parts.hostname:
        raise ValueError(f"{load.url} is not an http:// URL.")
    address = socket.getaddrinfo(parts.hostname, parts.port or 80, type=socket.SOCK_STREAM)[0]
    collects = gc.isenabled()
    gc.collect()
    gc.disable()  # a collection would count as the server's slowness
    run = _Run(load, address[0], address[4])
    try:
        return run.run()
    finally:
        run.close()
        if collects:
            gc.enable()


class _Run:
    """One run."""

    def __init__(self, load: Load, family: int, address: tuple[Any, ...]) -> None:
        self._load = load
        self._family, self._address = family, address
        self._poll = select.epoll()
        self._outcome = Outcome()
        self._errors: Counter[str] = Counter()
        self._by_fd: dict[int, _Connection] = {}
        self._free = [_Connection(streams=load.streams) for _ in range(load.connections)]
        self._resting: deque[tuple[float, _Connection]] = deque()
        self._backlog: deque[float] = deque()
        self._number = load.first
        self._recorded = 0
        self._begin_s = self._record_s = self._end_s = 0.0

    def run(self) -> Outcome:
        load, outcome = self._load, self._outcome
        for connection in self._free:
            self._connect(connection)
        self._begin_s = time.perf_counter()
        self._record_s = self._begin_s + load.warm_up_s
        self._end_s = self._record_s + load.seconds
        arrivals = None if load.rate_per_s is None else Arrivals(load.rate_per_s, self._begin_s, self._end_s)
        now_s = scanned_s = self._begin_s
        while True:
            self._give_out(arrivals, now_s)
            over = self._over(arrivals, now_s)
            if over and (now_s > self._end_s + load.timeout_s or not (self._busy() or self._backlog)):
                break
            self._wait(arrivals)
            now_s = time.perf_counter()
            if now_s - scanned_s > SCAN_S:
                scanned_s = now_s
                self._drop_late(now_s)
        unanswered = self._busy() + len(self._backlog)
        if unanswered:
            self._errors["unanswered at the end"] += unanswered
        outcome.seconds = min(now_s, self._end_s) - self._record_s
        outcome.errors = {kind: count for kind, count in self._errors.items() if count}
        return outcome

    def close(self) -> None:
        for connection in self._by_fd.values():
            if connection.sock is not None:
                connection.sock.close()
        self._poll.close()

    def _busy(self) -> int:
        return self._load.connections - len(self._free) - len(self._resting)

    def _over(self, arrivals: Arrivals | None, now_s: float) -> bool:
        """Whether no further request is to be sent, but for those that wait."""
        if self._load.requests_max is not None and self._recorded >= self._load.requests_max:
            return True
        return now_s >= self._end_s or (arrivals is not None and arrivals.next_s is None)

    # Sending.

    def _give_out(self, arrivals: Arrivals | None, now_s: float) -> None:
        """Give what is due to the connections that are free."""
        while self._resting and self._resting[0][0] <= now_s:
            self._free.append(self._resting.popleft()[1])
        if arrivals is None:
            while self._free and not self._over(None, now_s):
                self._start(self._free.pop(), now_s, now_s)
            return
        idle = bool(self._free)
        for due_s in arrivals.take(now_s):
            self._backlog.append(due_s)
            if idle and due_s >= self._record_s:
                self._outcome.late_s.append(now_s - due_s)
        while self._free and self._backlog:
            self._start(self._free.pop(), self._backlog.popleft(), now_s)

    def _start(self, connection: _Connection, due_s: float, now_s: float) -> None:
        number, self._number = self._number, self._number + 1
        self._outcome.attempts += 1
        self._recorded += due_s >= self._record_s
        connection.number, connection.due_s, connection.sent_s, connection.last_s = number, due_s, now_s, 0.0
        self._send(connection)

    def _send(self, connection: _Connection) -> None:
        connection.reader.reset()
        connection.out = self._load.request(connection.number)
        if connection.sock is None and not self._connect(connection):
            self._fail(connection, "not connected")
            return
        self._flush(connection)

    def _connect(self, connection: _Connection) -> bool:
        sock = socket.socket(self._family, socket.SOCK_STREAM)
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            sock.connect(self._address)
        except BlockingIOError:
            pass
        except OSError:
            sock.close()
            return False
        connection.sock, connection.fd, connection.kept, connection.waits = sock, sock.fileno(), False, False
        self._by_fd[connection.fd] = connection
        self._poll.register(connection.fd, select.EPOLLIN)
        return True

    def _flush(self, connection: _Connection) -> None:
        assert connection.sock is not None
        try:
            connection.out = connection.out[connection.sock.send(connection.out) :]
        except BlockingIOError:
            pass
        except OSError:
            self._closed(connection)
            return
        if bool(connection.out) != connection.waits:
            connection.waits = bool(connection.out)
            self._poll.modify(connection.fd, select.EPOLLIN | (select.EPOLLOUT if connection.waits else 0))

    # Receiving.

    def _wait(self, arrivals: Arrivals | None) -> None:
        timeout_s = REST_S
        next_s = None if arrivals is None or not self._free else arrivals.next_s
        if next_s is not None:
            # epoll knows milliseconds only; select knows microseconds, and an epoll can be waited for.
            left_s = next_s - time.perf_counter()
            timeout_s = 0.0
            if left_s > 0:
                select.select([self._poll.fileno()], [], [], min(left_s, REST_S))
        for fd, mask in self._poll.poll(timeout_s):
            connection = self._by_fd.get(fd)
            if connection is None:
                continue
            if mask & select.EPOLLOUT:
                self._flush(connection)
            if mask & ~select.EPOLLOUT:
                self._receive(connection)

    def _receive(self, connection: _Connection) -> None:
        if connection.sock is None:
            return  # sending has found it closed
        try:
            data = connection.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._closed(connection)
            return
        reader = connection.reader
        try:
            whole = reader.feed(data)
        except BadResponse:
            self._fail(connection, "not HTTP")
            return
        now_s = time.perf_counter()
        if not connection.last_s:
            if reader.began:
                connection.last_s = now_s
                if connection.due_s >= self._record_s:
                    self._outcome.first_bytes_s.append(now_s - connection.due_s)
        elif self._load.streams and connection.due_s >= self._record_s:
            self._outcome.gaps_s.append(now_s - connection.last_s)
            connection.last_s = now_s
        if reader.stamps_ns and connection.due_s >= self._record_s:
            now_ns = time.monotonic_ns()
            self._outcome.delays_s += [(now_ns - stamp_ns) / 1e9 for stamp_ns in reader.stamps_ns]
        if whole:
            self._finish(connection, now_s)

    def _finish(self, connection: _Connection, now_s: float) -> None:
        reader = connection.reader
        if reader.status != self._load.expect:
            self._errors[f"status {reader.status}"] += connection.due_s >= self._record_s
        else:
            if self._record_s <= now_s <= self._end_s:
                self._outcome.answered += 1
                self._outcome.events += reader.events
            if connection.due_s >= self._record_s:
                self._outcome.latencies_s.append(now_s - connection.due_s)
                self._outcome.marked += bool(self._load.mark) and self._load.mark in reader.head.lower()
        connection.number, connection.kept = -1, True
        if reader.closes:
            self._drop(connection)
            self._outcome.reconnects += 1
        self._free.append(connection)

    def _closed(self, connection: _Connection) -> None:
        """The server, or the network, has closed a connection."""
        if connection.number < 0:
            self._drop(connection)
        elif connection.reader.end():
            self._finish(connection, time.perf_counter())
        elif connection.kept and not connection.reader.status:
            self._drop(connection)
            self._outcome.reconnects += 1
            self._send(connection)
        else:
            self._fail(connection, "closed" if connection.reader.status or connection.kept else "not connected")

    def _fail(self, connection: _Connection, kind: str) -> None:
        self._errors[kind] += connection.due_s >= self._record_s
        self._drop(connection)
        connection.number = -1
        self._resting.append((time.perf_counter() + REST_S, connection))

    def _drop(self, connection: _Connection) -> None:
        if connection.sock is not None:
            self._by_fd.pop(connection.fd, None)
            connection.sock.close()  # which also takes it out of the epoll
            connection.sock = None

    def _drop_late(self, now_s: float) -> None:
        for connection in list(self._by_fd.values()):
            if connection.number >= 0 and now_s - connection.sent_s > self._load.timeout_s:
                self._fail(connection, "timeout")
