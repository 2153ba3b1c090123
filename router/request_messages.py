"""What the server has received of a request and the application has not: ASGI messages on their way.

Owns the queue between the task that reads a connection and the one that answers, and what lets the latter do without a
task of its own that waits for the client to leave. Must never hold more than its bound, nor look into a message beyond
how long it is and whether it is the last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from trio.lowlevel import ParkingLot

_SCOPE_KEY = "memoryrouter.messages"

Message = Mapping[str, Any]


class RequestMessages:
    """The messages of one request, at most so many; whoever puts one more waits.

    Does what a memory channel would, except that neither side gives up its turn of the event loop while there is room
    or something to receive: most requests are here as a whole before the application looks at them.
    """

    def __init__(self, messages_max: int) -> None:
        self._messages: deque[Message] = deque()
        self._messages_max = messages_max
        self._room = ParkingLot()
        self._filled = ParkingLot()
        self._body_bytes = 0
        self._is_whole = False
        self._is_over = False
        self._when_over: Callable[[], object] | None = None

    async def put(self, message: Message) -> None:
        """Add a message. The last one, that the client has left or the reply is out, finds room in any case, and who
        waits with another one is let go: whether anybody still receives is no concern of the connection's next request.
        """
        if message["type"] == "http.disconnect":
            self._is_over = True
            self._room.unpark_all()
            if self._when_over is not None:
                self._when_over()
        else:
            while len(self._messages) >= self._messages_max and not self._is_over:
                await self._room.park()
            if self._is_over:
                return
            self._body_bytes += len(message["body"])
            self._is_whole = not message["more_body"]
        self._messages.append(message)
        self._filled.unpark()

    async def receive(self) -> Message:
        """The next message."""
        while not self._messages:
            await self._filled.park()
        message = self._messages.popleft()
        self._room.unpark()
        return message

    def is_here(self, bytes_max: int) -> bool:
        """Whether the whole body, of no more than so many bytes, can be received without waiting for the client."""
        return self._is_whole and self._body_bytes <= bytes_max

    def when_over(self, tell: Callable[[], object]) -> None:
        """Call this when the client has left or the reply is out; at once if that is so already."""
        self._when_over = tell
        if self._is_over:
            tell()


def put_messages(scope: MutableMapping[str, Any], messages: RequestMessages) -> None:
    """Let the application know of the queue that `receive` takes its messages from."""
    scope[_SCOPE_KEY] = messages


def take_messages_away(scope: MutableMapping[str, Any]) -> None:
    """For a wrapper whose `receive` waits for more than the client: nobody must count on what the queue holds."""
    scope.pop(_SCOPE_KEY, None)


def messages_of(scope: Mapping[str, Any]) -> RequestMessages | None:
    """The queue behind `receive`; None where there is no such or a wrapper has taken it away."""
    found: RequestMessages | None = scope.get(_SCOPE_KEY)
    return found
