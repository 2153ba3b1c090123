"""A vault's mailbox: one bounded Trio channel, and the only place where reply channels exist.

A mailbox has two kinds of places. `ask` waits for one of `messages_max` ordinary places until its deadline. A
`Reservation` owns one of `reserved_max` places from before the work that it will report, so that telling the actor
about a finished conversation can never block and never fail for want of room. Either kind is free again when the actor
takes the message, so the two numbers bound what can wait.

Closing the send side is passivation: Trio still delivers what is buffered, then `EndOfChannel`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import trio

from models.distributions import Distribution
from models.errors import DeadlineExceeded, MemoryRouterError, Overloaded, VaultUnavailable
from models.messages import AnyMessage, Reply, describe


class TurnTimes:
    """For who asks and wants to know: when the message was sent, taken in hand and answered, by Trio's clock.

    What has not happened is 0.
    """

    __slots__ = ("answered_s", "sent_s", "taken_s")

    def __init__(self) -> None:
        self.sent_s = self.taken_s = self.answered_s = 0.0


class Envelope:
    """A message on its way: where the reply goes, and until when anybody wants it."""

    __slots__ = ("_free_place", "_reply_to", "_sent_s", "_times", "_waited", "deadline", "message")

    def __init__(
        self,
        message: AnyMessage,
        reply_to: trio.MemorySendChannel[Reply | MemoryRouterError] | None,
        deadline: float,
        free_place: Callable[[], None],
        *,
        waited: Distribution | None = None,
        times: TurnTimes | None = None,
    ) -> None:
        self.message = message
        self.deadline = deadline
        self._reply_to = reply_to
        self._free_place: Callable[[], None] | None = free_place
        self._waited = waited
        self._times = times
        self._sent_s = trio.current_time()
        if times is not None:
            times.sent_s = self._sent_s

    def taken(self) -> None:
        """The actor has it in hand: its place in the mailbox is free again."""
        if self._free_place is None:
            return
        self._free_place()
        self._free_place = None
        now_s = trio.current_time()
        if self._waited is not None:
            self._waited.observe(now_s - self._sent_s)
        if self._times is not None:
            self._times.taken_s = now_s

    def reply(self, result: Reply | MemoryRouterError) -> None:
        """Answer. A caller that has gone is not an error."""
        if self._times is not None:
            self._times.answered_s = trio.current_time()
        if self._reply_to is None:
            return
        with self._reply_to, suppress(trio.BrokenResourceError):
            self._reply_to.send_nowait(result)
        self._reply_to = None

    def drop(self) -> None:
        """Let go without an answer: the caller sees `VaultUnavailable`. After a reply this changes nothing."""
        self.taken()
        if self._reply_to is not None:
            self._reply_to.close()
            self._reply_to = None

    @property
    def expired(self) -> bool:
        """Nobody waits any more."""
        return self.deadline <= trio.current_time()


class Mailbox:
    """The bounded queue of one vault."""

    def __init__(self, *, messages_max: int, reserved_max: int, waited: Distribution | None = None) -> None:
        """Make an empty one.

        Args:
            waited: gets the seconds that each message has waited when the actor takes it.
        """
        self._waited = waited
        self._places = trio.Semaphore(messages_max, max_value=messages_max)
        self._reserved_free = reserved_max
        self._reserved_max = reserved_max
        self._messages_max = messages_max
        self._send, self.receive = trio.open_memory_channel[Envelope](messages_max + reserved_max)

    async def ask(self, message: AnyMessage, *, timeout_s: float, times: TurnTimes | None = None) -> Any:
        """Send a message and wait for its reply.

        Args:
            times: filled in on the way.

        Raises:
            Overloaded: no place became free within the deadline.
            DeadlineExceeded: no reply within the deadline.
            VaultUnavailable: the actor failed with this message in hand.
            trio.ClosedResourceError: the mailbox is closed; look the vault up again.
            MemoryRouterError: whatever the vault answered.
        """
        deadline = trio.current_time() + timeout_s
        await self._acquire_place(deadline)
        send, receive = trio.open_memory_channel[Reply | MemoryRouterError](1)
        try:
            self._send.send_nowait(
                Envelope(message, send, deadline, self._places.release, waited=self._waited, times=times)
            )
        except trio.ClosedResourceError:
            self._places.release()
            raise
        with receive, trio.move_on_at(deadline):
            try:
                result = await receive.receive()
            except trio.EndOfChannel:
                raise VaultUnavailable("The vault failed while it handled this request; it is restarting.") from None
            if isinstance(result, MemoryRouterError):
                raise result
            return result
        raise DeadlineExceeded(f"The vault did not answer within {timeout_s:g} s ({describe(message)}).")

    async def post(self, message: AnyMessage) -> None:
        """Send a message that needs no reply, waiting for an ordinary place: for the actor's own children.

        Raises:
            trio.ClosedResourceError: the mailbox is closed.
        """
        await self._acquire_place(math.inf)
        try:
            self._send.send_nowait(Envelope(message, None, math.inf, self._places.release, waited=self._waited))
        except trio.ClosedResourceError:
            self._places.release()
            raise

    async def _acquire_place(self, deadline: float) -> None:
        with trio.move_on_at(deadline) as scope:
            await self._places.acquire()
        if scope.cancelled_caught:
            raise Overloaded(f"The vault has {self._messages_max} requests waiting.", retry_after_s=1)

    def reserve_nowait(self) -> Reservation:
        """Take a reserved place.

        Raises:
            Overloaded: `reserved_max` exchanges are under way in this vault.
        """
        if self._reserved_free == 0:
            raise Overloaded(f"The vault has {self._reserved_max} exchanges under way.", retry_after_s=1)
        self._reserved_free -= 1
        return Reservation(self)

    def close(self) -> None:
        """Take nothing new; what is buffered is still delivered."""
        self._send.close()

    def drop_all(self) -> None:
        """Drop whatever waits, without answers."""
        while True:
            try:
                self.receive.receive_nowait().drop()
            except (trio.WouldBlock, trio.EndOfChannel):
                return

    @property
    def waiting(self) -> int:
        """Messages in the queue."""
        return self._send.statistics().current_buffer_used

    @property
    def reserved(self) -> int:
        """Reserved places in use, by work under way and by messages in the queue."""
        return self._reserved_max - self._reserved_free

    def _free_reserved(self) -> None:
        self._reserved_free += 1


class Reservation:
    """One reserved place in a mailbox, used at most once: the message takes it over."""

    __slots__ = ("_mailbox", "_open")

    def __init__(self, mailbox: Mailbox) -> None:
        self._mailbox = mailbox
        self._open = True

    def send(self, message: AnyMessage) -> ReplySlot:
        """Tell the actor; cannot block. Returns where its reply will be. A closed mailbox leaves the reply empty."""
        assert self._open, "a reservation sends once"
        self._open = False
        send, receive = trio.open_memory_channel[Reply | MemoryRouterError](1)
        mailbox = self._mailbox
        envelope = Envelope(message, send, math.inf, mailbox._free_reserved, waited=mailbox._waited)
        try:
            mailbox._send.send_nowait(envelope)
        except trio.ClosedResourceError:
            envelope.drop()
        return ReplySlot(receive)

    def release(self) -> None:
        """Give the place back; harmless when it was given back before."""
        if self._open:
            self._open = False
            self._mailbox._free_reserved()


class ReplySlot:
    """The reply to a message that was sent without waiting."""

    __slots__ = ("_receive",)

    def __init__(self, receive: trio.MemoryReceiveChannel[Reply | MemoryRouterError]) -> None:
        self._receive = receive

    async def wait(self, *, timeout_s: float) -> Any:
        """The reply; wait for it once.

        Raises:
            DeadlineExceeded: none within `timeout_s`.
            VaultUnavailable: the actor failed with the message in hand.
        """
        with self._receive, trio.move_on_after(timeout_s):
            try:
                result = await self._receive.receive()
            except trio.EndOfChannel:
                raise VaultUnavailable("The vault failed while it took in this exchange; it is restarting.") from None
            if isinstance(result, MemoryRouterError):
                raise result
            return result
        raise DeadlineExceeded(f"The vault did not take in this exchange within {timeout_s:g} s.")
