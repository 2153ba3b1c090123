"""Striking at the k-th checkpoint, for every k: an instrument that counts the steps of a task and of its children."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio

CHECKPOINTS_MAX = 400

Task = trio.lowlevel.Task


class Attempt(trio.abc.Instrument):
    """One run of an operation, struck when the tasks that are followed stop at their k-th checkpoint, taken together.

    Attributes:
        checkpoint: k, from 1.
        struck: whether they came so far.
    """

    def __init__(self, checkpoint: int) -> None:
        self.checkpoint = checkpoint
        self.struck = False
        self._left = checkpoint
        self._strike: Callable[[], object] = lambda: None
        self._follows: Callable[[Task], bool] = lambda _: False

    @contextmanager
    def striking(self, strike: Callable[[], object], *, follows: Callable[[Task], bool]) -> Iterator[None]:
        """Count for the length of the block, and strike at the checkpoint if it comes."""
        self._strike, self._follows = strike, follows
        trio.lowlevel.add_instrument(self)
        try:
            yield
        finally:
            trio.lowlevel.remove_instrument(self)

    @contextmanager
    def cancelling(self) -> Iterator[None]:
        """A scope that is cancelled at the k-th checkpoint of this task and of those that it starts within."""
        root = trio.lowlevel.current_task()
        with trio.CancelScope() as scope, self.striking(scope.cancel, follows=lambda task: root in lineage(task)):
            yield

    def after_task_step(self, task: Task) -> None:
        """One task has gone from one checkpoint to its next."""
        if self._left and self._follows(task):
            self._left -= 1
            if self._left == 0:
                self.struck = True
                self._strike()


def lineage(task: Task) -> Iterator[Task]:
    """A task and all it descends from."""
    yield task
    while task.parent_nursery is not None:
        task = task.parent_nursery.parent_task
        yield task


def every_checkpoint() -> Iterator[Attempt]:
    """Attempts with k of 1, 2, 3 and so on, up to the first that gets through before it is struck."""
    for checkpoint in range(1, CHECKPOINTS_MAX):
        attempt = Attempt(checkpoint)
        yield attempt
        if not attempt.struck:
            assert checkpoint > 1, "nothing was ever struck"
            return
    raise AssertionError("It never gets through.")
