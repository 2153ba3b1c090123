"""Who is signed in to the dashboard. In memory only: a restart signs everybody out.

Owns the tokens' making, their lives and their number. A session knows its key by the hash that the directory knows it
by, so that each request finds out whether that key is still live; must never hold a key or a token itself.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable

from actors.store.cache import RecentlyUsed
from models.dashboard_settings import DashboardSettings

TOKEN_BYTES = 32
SESSIONS_OF_ACCOUNT_MAX = 100
"""Of one account; its own oldest makes room, so that nobody signs out the people of other accounts."""

NUMBERS = 2**62

VAULTS_OPENED_MAX = 1_000
"""Vaults that a session is known to have opened; one that was forgotten is audited once more."""

Clock = Callable[[], float]


class Session:
    """One browser that is signed in.

    Attributes:
        number: tells sessions apart, also from those of before a restart, of which other workers may still know.
        key_hash: of the account key, without suffix, that opened it.
        csrf: what each request for data has to say beside the cookie.
        opened: vaults of users whose opening is in the audit log.
    """

    __slots__ = ("account_number", "began_s", "csrf", "key_hash", "number", "opened", "seen_s")

    def __init__(self, number: int, key_hash: bytes, account_number: int, *, now_s: float) -> None:
        self.number = number
        self.key_hash = key_hash
        self.account_number = account_number
        self.csrf = secrets.token_urlsafe(TOKEN_BYTES)
        self.began_s = self.seen_s = now_s
        self.opened: RecentlyUsed[int, bool] = RecentlyUsed(VAULTS_OPENED_MAX)

    def is_confirmed_by(self, csrf: str) -> bool:
        """Whether a request knows what only the page itself was told."""
        return hmac.compare_digest(self.csrf.encode(), csrf.encode("utf-8", "replace"))


class Sessions:
    """All sessions of one server, the one idle for longest first."""

    def __init__(
        self, settings: DashboardSettings, *, clock: Clock, ended: Callable[[Session], None] = lambda _: None
    ) -> None:
        """Make one.

        Args:
            clock: monotonic seconds.
            ended: hears of each session that is over.
        """
        self._settings = settings
        self._clock = clock
        self._ended = ended
        self._by_digest: OrderedDict[bytes, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._by_digest)

    def open(self, key_hash: bytes, account_number: int) -> tuple[str, Session]:
        """A new session, and its token, which nobody but the browser keeps."""
        now_s = self._clock()
        self._drop_over(now_s)
        own = [digest for digest, session in self._by_digest.items() if session.account_number == account_number]
        if len(own) >= SESSIONS_OF_ACCOUNT_MAX:
            self._drop(own[0])
        while len(self._by_digest) >= self._settings.sessions_max:
            self._drop(next(iter(self._by_digest)))
        token = secrets.token_urlsafe(TOKEN_BYTES)
        session = Session(1 + secrets.randbelow(NUMBERS), key_hash, account_number, now_s=now_s)
        self._by_digest[_digest(token)] = session
        return token, session

    def find(self, token: str) -> Session | None:
        """The live session of this token, which is not idle any more."""
        digest, now_s = _digest(token), self._clock()
        session = self._by_digest.get(digest)
        if session is None:
            return None
        if self._is_over(session, now_s):
            self._drop(digest)
            return None
        session.seen_s = now_s
        self._by_digest.move_to_end(digest)
        return session

    def end(self, token: str) -> None:
        """End the session of this token, if there is one."""
        digest = _digest(token)
        if digest in self._by_digest:
            self._drop(digest)

    def left_s(self, session: Session) -> float:
        """Seconds until it ends in any case."""
        return max(0.0, session.began_s + self._settings.session_max_s - self._clock())

    def statistics(self) -> dict[str, int]:
        """For metrics."""
        self._drop_over(self._clock())
        return {"sessions": len(self._by_digest)}

    def _is_over(self, session: Session, now_s: float) -> bool:
        settings = self._settings
        is_idle = now_s - session.seen_s >= settings.session_idle_s
        return is_idle or now_s - session.began_s >= settings.session_max_s

    def _drop_over(self, now_s: float) -> None:
        for digest in [digest for digest, session in self._by_digest.items() if self._is_over(session, now_s)]:
            self._drop(digest)

    def _drop(self, digest: bytes) -> None:
        self._ended(self._by_digest.pop(digest))


def _digest(token: str) -> bytes:
    """What a token is found by. It has 256 random bits, so that nobody guesses one from how long a search takes."""
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
