"""What is asked of a vault's memories when they are all gone: the vault was emptied, and another one has its place.

Owns which messages are about memories that there are. Such a message must never reach the vault that took the place:
other memories have the same numbers there, and what was said since is not what somebody wanted to be deleted.
"""

from __future__ import annotations

from models.errors import NotFound
from models.messages import (
    ChangeMemory,
    Forget,
    ForgetMatching,
    ForgetMemory,
    Forgotten,
    ForgottenPart,
    GetMemory,
)

Addressed = GetMemory | ChangeMemory | ForgetMemory | ForgetMatching | Forget
"""Messages about memories that a vault has when they are sent."""


def nothing_left(message: Addressed) -> Forgotten | ForgottenPart:
    """What a vault answers that has been emptied meanwhile.

    Raises:
        NotFound: the message is about one memory.
    """
    match message:
        case Forget():
            return Forgotten(0)
        case ForgetMatching():
            return ForgottenPart(0, after_seq=None, last_seq=message.last_seq or 0)
        case _:
            raise NotFound("There is no such memory.")
