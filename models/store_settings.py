"""The store's limits: how many files, how much may wait, how much is kept in memory, and the key from the environment.

Pure data. The numbers' reasons stand beside them; none of them changes what is stored, only how fast and
within which bounds.
"""

from __future__ import annotations

import base64
import binascii
from typing import Literal

import msgspec

from models.errors import SettingError
from models.provider_settings import Secret

MEBIBYTE = 1024 * 1024
SHARDS_MAX = 64
PARTS_MAX = 65_536
WRITER_THREADS_MAX = 64
Kind = Literal["sqlite", "postgres"]
QUEUE_ROWS_LIMIT = 1 << 20  # a row id keeps 20 bits for a row's place in its commit
SERVER_KEY_BYTES = 32
_MAY_BE_ZERO = frozenset({"ballast_bytes", "scrub_interval_s"})


class StoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where everything is stored, and limits.

    Attributes:
        kind: `sqlite`: files in the data directory. `postgres`: the database at `url`.
        url: of the PostgreSQL database, as libpq takes it; several hosts may stand in it.
        parts: partitions of a new PostgreSQL database, the most nodes that it can ever be spread over; an existing one
            keeps the number it was made with.
        writer_threads: threads, each with a connection, that commit into PostgreSQL.
        shards: shard files of a new data directory; an existing one keeps the number it was made with.
        queue_rows_max: accepted rows of one shard (on PostgreSQL: of one writer thread) that may wait for their commit.
        queue_bytes_max: the same in bytes of encoded exchanges.
        batch_rows_max: rows after which a group commit takes no further job; bounds the wait of the last one.
        checkpoint_wal_bytes: size of a WAL at which the committer copies it into its database.
        reader_threads: threads that read, over all files together.
        key_cache_max: principals of live keys kept in memory.
        data_key_cache_max: unwrapped data keys kept in memory, about 2.5 kB each.
        ballast_bytes: room held back and given up when the disk is full, so that deletes and checkpoints can run. A
            checkpoint may need as much room as its WAL holds, so a WAL is copied before it outgrows a quarter of this.
            0 holds none.
        scrub_interval_s: time in which every stored row is read and its checksum verified once. 0 never does.
        server_key: the server key in base64 instead of a file, for example from the environment.
    """

    kind: Kind = "sqlite"
    url: Secret = Secret()
    parts: int = 64
    writer_threads: int = 8
    shards: int = 4
    queue_rows_max: int = 8192
    queue_bytes_max: int = 256 * MEBIBYTE
    batch_rows_max: int = 512
    checkpoint_wal_bytes: int = 16 * MEBIBYTE
    reader_threads: int = 4
    key_cache_max: int = 65536
    data_key_cache_max: int = 8192
    ballast_bytes: int = 64 * MEBIBYTE
    scrub_interval_s: float = 86_400.0
    server_key: Secret = Secret()

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value, least = getattr(self, name), int(name not in _MAY_BE_ZERO)
            if isinstance(value, int | float) and value < least:
                raise SettingError(f"store.{name} must be at least {least}.")
        if self.shards > SHARDS_MAX:
            raise SettingError(f"store.shards may be at most {SHARDS_MAX}.")
        if self.parts > PARTS_MAX:
            raise SettingError(f"store.parts may be at most {PARTS_MAX}.")
        if self.writer_threads > WRITER_THREADS_MAX:
            raise SettingError(f"store.writer_threads may be at most {WRITER_THREADS_MAX}.")
        if self.queue_rows_max > QUEUE_ROWS_LIMIT:
            raise SettingError(f"store.queue_rows_max may be at most {QUEUE_ROWS_LIMIT}.")

    def server_key_bytes(self) -> bytes | None:
        """The key of `server_key`, or None when it is empty and a file holds the key.

        Raises:
            SettingError: it is not base64 of exactly 32 bytes.
        """
        if not self.server_key:
            return None
        try:
            key = base64.b64decode(self.server_key.reveal(), altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != SERVER_KEY_BYTES:
            raise SettingError(
                f"store.server_key must be {SERVER_KEY_BYTES} bytes in base64.",
                hint="Make one with: head -c 32 /dev/urandom | base64",
            )
        return key
