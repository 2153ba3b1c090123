"""A provider that does nothing but answer: bytes made once, on one thread with one epoll, so that it is no bottleneck.

    python -m bench._mock_provider PORT

Owns the sockets and the clock of the scripts; what it says, and what the names of models mean, is in
`bench._provider_replies`. It speaks Chat Completions and Messages. Every chunk of a stream says when it was sent
(`at=NANOSECONDS;` of the clock that all processes of a machine share). `GET /left` tells when clients of the models
`endless` and `hang` left. How it was checked that it does not limit what is measured stands in `bench/README.md`.
"""

from __future__ import annotations

import gc
import heapq
import json
import math
import select
import socket
import sys
import time

import msgspec

from bench._provider_replies import CUT, MODELS, PAUSE_S, STREAM_CHUNKS, Script, answer, random_stream, whole

__all__ = ["PAUSE_S", "STREAM_CHUNKS", "random_stream"]

RECEIVE_BYTES = 1 << 18
HEAD_BYTES_MAX = 1 << 16
WATCHED = ("endless", "hang")
_BAD = whole(
    b'{"error":{"message":"The mock understands Chat Completions and Messages.","type":"mock_error"}}', "400 Bad"
)


class _Asked(msgspec.Struct):
    """What the mock reads of a request."""

    model: str
    stream: bool = False


_decode = msgspec.json.Decoder(_Asked).decode


class _Client:
    """A connection."""

    __slots__ = ("buffer", "due_s", "fd", "left", "out", "script", "sock", "watched")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.buffer = b""
        self.out = b""
        self.script: Script | None = None
        self.due_s = 0.0  # of the last bytes of the script
        self.watched = self.left = False


class Provider:
    """All connections of a listening socket."""

    def __init__(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._poll = select.epoll()
        self._poll.register(listener.fileno(), select.EPOLLIN)
        self._clients: dict[int, _Client] = {}
        self._timers: list[tuple[float, int, _Client]] = []
        self._sequence = 0
        self._left_ns: list[int] = []

    def run(self) -> None:
        """Serve for ever."""
        listening = self._listener.fileno()
        while True:
            self._wait()
            for fd, mask in self._poll.poll(0):
                if fd == listening:
                    self._accept()
                    continue
                client = self._clients.get(fd)
                if client is not None and mask & select.EPOLLOUT:
                    self._flush(client)
                if client is not None and mask & ~select.EPOLLOUT and not client.left:
                    self._receive(client)
            now_s = time.monotonic()
            while self._timers and self._timers[0][0] <= now_s:
                due_s, _, client = heapq.heappop(self._timers)
                if not client.left:
                    client.due_s = due_s
                    self._play(client)

    def _wait(self) -> None:
        """Until something comes or is due: epoll counts milliseconds, select microseconds."""
        left_s = self._timers[0][0] - time.monotonic() if self._timers else 1.0
        if left_s > 0:
            select.select([self._poll.fileno()], [], [], left_s)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except BlockingIOError:
                return
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._clients[sock.fileno()] = _Client(sock)
            self._poll.register(sock.fileno(), select.EPOLLIN)

    def _receive(self, client: _Client) -> None:
        try:
            data = client.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._drop(client)
            return
        client.buffer += data
        if client.script is None:
            self._next(client)

    def _next(self, client: _Client) -> None:
        """Answer the requests that are whole, one after the other."""
        while client.buffer and client.script is None and not client.left:
            try:
                request = _taken(client.buffer)
            except ValueError:
                self._write(client, _BAD)
                self._drop(client)
                return
            if request is None:
                return
            line, body, client.buffer = request
            self._answer(client, line, body)

    def _answer(self, client: _Client, line: bytes, body: bytes) -> None:
        if line.startswith(b"GET /left"):
            left_ns, self._left_ns = self._left_ns, []
            self._write(client, whole(json.dumps(left_ns).encode()))
            return
        if line.startswith(b"GET "):
            self._write(client, MODELS)
            return
        try:
            asked = _decode(body)
        except msgspec.DecodeError:
            self._write(client, _BAD)
            return
        client.watched = asked.model.rpartition("/")[2] in WATCHED
        reply = answer(asked.model, stream=asked.stream, in_messages=b"/messages" in line)
        if isinstance(reply, bytes):
            self._write(client, reply)
        else:
            client.script, client.due_s = reply, time.monotonic()
            self._play(client)

    def _play(self, client: _Client) -> None:
        """Write what is due; go on when the rest is, or when the client has read enough."""
        assert client.script is not None
        while not client.out and not client.left:
            step = next(client.script, None)
            if step is None:
                client.script = None
                self._next(client)
                return
            if step == CUT:
                self._drop(client)
            elif isinstance(step, bytes):
                self._write(client, step)
            else:
                if step != math.inf:
                    self._sequence += 1
                    heapq.heappush(self._timers, (client.due_s + step, self._sequence, client))
                return

    def _write(self, client: _Client, data: bytes) -> None:
        if client.out:
            client.out += data
            return
        try:
            sent = client.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._drop(client)
            return
        if sent < len(data):
            client.out = data[sent:]
            self._poll.modify(client.fd, select.EPOLLIN | select.EPOLLOUT)

    def _flush(self, client: _Client) -> None:
        data, client.out = client.out, b""
        self._poll.modify(client.fd, select.EPOLLIN)
        self._write(client, data)
        if not client.out and client.script is not None:
            client.due_s = time.monotonic()  # the pace begins anew behind a client that did not read
            self._play(client)

    def _drop(self, client: _Client) -> None:
        if client.watched and not client.left:
            self._left_ns.append(time.monotonic_ns())
        client.left = True
        self._clients.pop(client.fd, None)
        client.sock.close()


def _taken(buffer: bytes) -> tuple[bytes, bytes, bytes] | None:
    """The request line, the body, and what follows, if a whole request has come.

    Raises:
        ValueError: it is none.
    """
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        if len(buffer) > HEAD_BYTES_MAX:
            raise ValueError
        return None
    head = buffer[:end].lower()
    line = buffer[: buffer.find(b"\r\n")]
    at = head.find(b"\r\ncontent-length:")
    if at >= 0:
        stop = head.find(b"\r\n", at + 2)
        length = int(head[at + 17 : stop if stop >= 0 else end])
        if len(buffer) < end + 4 + length:
            return None
        return line, buffer[end + 4 : end + 4 + length], buffer[end + 4 + length :]
    if b"\r\ntransfer-encoding: chunked" in head:
        return _taken_chunks(line, buffer, end + 4)
    return line, b"", buffer[end + 4 :]


def _taken_chunks(line: bytes, buffer: bytes, position: int) -> tuple[bytes, bytes, bytes] | None:
    body = b""
    while (end := buffer.find(b"\r\n", position)) >= 0:
        size = int(buffer[position:end].partition(b";")[0], 16)
        position = end + 2 + size + 2
        if len(buffer) < position:
            return None
        if not size:
            return line, body, buffer[position:]
        body += buffer[end + 2 : end + 2 + size]
    return None


def main(port: int) -> None:
    """Serve on a port of this machine."""
    with socket.create_server(("127.0.0.1", port), backlog=1024) as listener:
        gc.freeze()
        Provider(listener).run()


if __name__ == "__main__":
    main(int(sys.argv[1]))
