"""The store's limits: how many files, how much may wait, how much is kept in memory.

Pure data. The numbers' reasons stand beside them; none of them changes what is stored, only how fast and
within which bounds.
"""

from __future__ import annotations

import msgspec

from models.errors import SettingError

MEBIBYTE = 1024 * 1024
SHARDS_MAX = 64
QUEUE_ROWS_LIMIT = 1 << 20  # a row id keeps 20 bits for a row's place in its commit


class StoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Limits of one data directory.

    Attributes:
        shards: shard files of a new data directory; an existing one keeps the number it was made with.
        queue_rows_max: accepted rows of one shard that may wait for their commit.
        queue_bytes_max: the same in bytes of encoded exchanges.
        batch_rows_max: rows after which a group commit takes no further job; bounds the wait of the last one.
        checkpoint_wal_bytes: size of a WAL at which the committer copies it into its database.
        reader_threads: threads that read, over all files together.
        key_cache_max: principals of live keys kept in memory.
        data_key_cache_max: unwrapped data keys kept in memory, about 2.5 kB each.
    """

    shards: int = 4
    queue_rows_max: int = 8192
    queue_bytes_max: int = 256 * MEBIBYTE
    batch_rows_max: int = 512
    checkpoint_wal_bytes: int = 16 * MEBIBYTE
    reader_threads: int = 4
    key_cache_max: int = 65536
    data_key_cache_max: int = 8192

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if getattr(self, name) < 1:
                raise SettingError(f"store.{name} must be at least 1.")
        if self.shards > SHARDS_MAX:
            raise SettingError(f"store.shards may be at most {SHARDS_MAX}.")
        if self.queue_rows_max > QUEUE_ROWS_LIMIT:
            raise SettingError(f"store.queue_rows_max may be at most {QUEUE_ROWS_LIMIT}.")
