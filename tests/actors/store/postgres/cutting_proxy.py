"""A TCP proxy in front of PostgreSQL that cuts connections at a COMMIT: before it, after it, or lets it come late."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
"""The message of the wire protocol."""
BEFORE, AFTER, LATE = "before", "after", "late"


class CuttingProxy:
    """Passes bytes on in threads. A planned cut happens at the next COMMIT of any connection.

    Attributes:
        port: where it listens, on 127.0.0.1.
        cuts: how many there were.
        refuses: whether new connections are closed at once.
    """

    def __init__(self, server_port: int) -> None:
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.cuts = 0
        self.refuses = False
        self.refuses_after_cut = False
        self._planned: list[str] = []
        self._lock = threading.Lock()
        self._late: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def plan(self, *cuts: str) -> None:
        """Cut at the next commits: `before` the server gets it, `after` it has answered, which the client does not
        hear, or `late`: the client loses the connection at once, and the server gets the COMMIT when the client's next
        connection asks for the same lock."""
        self._planned += cuts

    def plan_outage(self, cut: str) -> None:
        """The same, and no new connections from then on, until `refuses` is set back."""
        self.refuses_after_cut = True
        self.plan(cut)

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.refuses:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._server_port))
                cut = threading.Event()
                for target in (self._pass_requests, self._pass_answers):
                    threading.Thread(target=target, args=(client, server, cut), daemon=True).start()

    def _pass_requests(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        with suppress(OSError):
            while data := client.recv(1 << 16):
                if b"UPDATE " in data and b"SET commits" in data:
                    server.sendall(data)
                    self._deliver_late()
                    continue
                if COMMIT not in data or not (how := self._next_cut()):
                    server.sendall(data)
                    continue
                cut.set()
                self.refuses |= self.refuses_after_cut
                if how == AFTER:
                    server.sendall(data)  # whoever passes the answer cuts
                    return
                if how == LATE:
                    with self._lock:
                        self._late.append(server)
                else:
                    _close(server)
                _close(client)
                return
        _close(server)
        _close(client)

    def _pass_answers(self, client: socket.socket, server: socket.socket, cut: threading.Event) -> None:
        with suppress(OSError):
            while data := server.recv(1 << 16):
                if cut.is_set():
                    _close(client)
                    _close(server)
                    return
                client.sendall(data)
        _close(client)

    def _next_cut(self) -> str | None:
        with self._lock:
            if not self._planned:
                return None
            self.cuts += 1
            return self._planned.pop(0)

    def _deliver_late(self) -> None:
        with self._lock:
            late, self._late = self._late, []
        for server in late:
            server.sendall(COMMIT)


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()


@contextmanager
def cutting_proxy(server_port: int) -> Iterator[CuttingProxy]:
    """A proxy while the test runs."""
    proxy = CuttingProxy(server_port)
    try:
        yield proxy
    finally:
        proxy.close()
