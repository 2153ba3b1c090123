"""Sealing: AES-256-GCM over every row, under one data key per vault, itself wrapped by the server's key.

Owns the server key's file and the layout of sealed bytes: a random 96-bit nonce, the ciphertext, the 128-bit
tag. The tag is also the row's checksum, which SQLite lacks. The associated data binds a row to its place, so
that a row moved to another vault, table or id does not open. Must never log a key or a plaintext, and never
make a new server key where wrapped keys exist already: that would turn every vault into noise.

One data key seals fewer than 2**32 rows, the bound for random nonces in NIST SP 800-38D section 8.3.
"""

from __future__ import annotations

import enum
import hashlib
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from models.errors import CorruptRow, SetupError
from models.provider_settings import Secret

KEY_BYTES = 32
NONCE_BYTES = 12
TAG_BYTES = 16
SEALED_OVERHEAD_BYTES = NONCE_BYTES + TAG_BYTES
WRAPPED_KEY_BYTES = KEY_BYTES + SEALED_OVERHEAD_BYTES
SERVER_KEY_FILE = "server.key"

_ROW_FORMAT = 1
_ROW = struct.Struct(">BQBQQ")  # format, vault number, table, row id, qualifier
_WRAPPED = struct.Struct(">11sQ")  # purpose, vault number
_WIDER_THAN_OWNER_READ_WRITE = 0o7177


class Table(enum.IntEnum):
    """Which table a sealed row belongs to; part of its associated data, so the numbers never change."""

    INBOX = 1
    MEMORY = 2
    EMBEDDING = 3


class DataKey:
    """The key of one vault. Safe to use from several threads at once."""

    __slots__ = ("_cipher", "_vault_number")

    def __init__(self, secret: bytes, *, vault_number: int) -> None:
        self._cipher = AESGCM(secret)
        self._vault_number = vault_number

    def seal(self, table: Table, row_id: int, plaintext: bytes, *, qualifier: int = 0) -> bytes:
        """Seal the body of one row. `qualifier` binds one more column (an embedding's model number)."""
        nonce = os.urandom(NONCE_BYTES)
        context = _ROW.pack(_ROW_FORMAT, self._vault_number, table, row_id, qualifier)
        return nonce + self._cipher.encrypt(nonce, plaintext, context)

    def unseal_rows(
        self,
        table: Table,
        rows: Iterable[tuple[int, bytes]],
        *,
        qualifier: int = 0,
        damaged: list[int] | None = None,
    ) -> Iterator[tuple[int, bytes]]:
        """Row ids and bodies, in the order of `rows` (row ids and sealed bodies). One loop, for its speed.

        Args:
            table: where they stand.
            rows: row ids and sealed bodies.
            qualifier: the further column that they are bound to.
            damaged: gets the ids of rows that do not open, which are left out; without it they raise.

        Raises:
            CorruptRow: a row was changed, or sealed for another vault, table, id or qualifier.
        """
        decrypt, pack, vault_number = self._cipher.decrypt, _ROW.pack, self._vault_number
        for row_id, sealed in rows:
            context = pack(_ROW_FORMAT, vault_number, table, row_id, qualifier)
            try:
                body = decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)
            except (InvalidTag, ValueError) as error:  # ValueError: too short to hold a nonce
                if damaged is not None:
                    damaged.append(row_id)
                    continue
                raise CorruptRow(
                    f"Row {row_id} of {table.name.lower()} in vault {vault_number} fails its checksum."
                ) from error
            yield row_id, body


class ServerKey:
    """The key that wraps all others. Held in memory and in its file, never in a database or a backup."""

    __slots__ = ("_cipher", "key_id", "node_token")

    def __init__(self, secret: bytes) -> None:
        if len(secret) != KEY_BYTES:
            raise SetupError(f"The server key has {len(secret)} bytes instead of {KEY_BYTES}.")
        self._cipher = AESGCM(secret)
        self.key_id = hashlib.sha256(b"memoryrouter server key id" + secret).digest()[:16]
        """Tells two server keys apart without telling anything about them."""
        self.node_token = Secret(hashlib.sha256(b"memoryrouter node token" + secret).hexdigest())
        """What the servers that share this key know each other by."""

    def seal(self, context: bytes, plaintext: bytes) -> bytes:
        """Seal bytes that belong to no vault (a provider key). `context` says what they are and whose."""
        nonce = os.urandom(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plaintext, context)

    def unseal(self, context: bytes, sealed: bytes) -> bytes:
        """The plaintext.

        Raises:
            CorruptRow: changed, sealed for another context or by another server key.
        """
        try:
            return self._cipher.decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], context)
        except (InvalidTag, ValueError) as error:
            raise CorruptRow("A value sealed by the server key fails its checksum.") from error

    def rewrap_data_key(self, vault_number: int, wrapped: bytes, *, by: ServerKey) -> bytes:
        """The same data key wrapped by another server key, in as many bytes.

        Raises:
            CorruptRow: the wrapped key was changed or belongs to another vault.
        """
        context = _WRAPPED.pack(b"vault's key", vault_number)
        return by.seal(context, self.unseal(context, wrapped))

    def new_wrapped_data_key(self, vault_number: int) -> bytes:
        """A new random data key for this vault, wrapped: `WRAPPED_KEY_BYTES` bytes."""
        secret = AESGCM.generate_key(bit_length=8 * KEY_BYTES)
        return self.seal(_WRAPPED.pack(b"vault's key", vault_number), secret)

    def unwrap_data_key(self, vault_number: int, wrapped: bytes) -> DataKey:
        """The data key of this vault.

        Raises:
            CorruptRow: the wrapped key was changed or belongs to another vault.
        """
        secret = self.unseal(_WRAPPED.pack(b"vault's key", vault_number), wrapped)
        return DataKey(secret, vault_number=vault_number)


def load_server_key(path: Path, *, may_create: bool) -> ServerKey:
    """Read the server key, or make it at the first start.

    Args:
        path: its file.
        may_create: whether nothing was wrapped by a server key yet.

    Raises:
        SetupError: the file is missing although keys were wrapped, readable by others, of the wrong length,
            or cannot be read or written.
    """
    try:
        if not path.exists():
            if not may_create:
                raise SetupError(
                    f"The server key file {path} is missing, and vaults were sealed with it.",
                    hint="Put the file back; without it nothing that is stored can be read.",
                )
            write_key_file(path, os.urandom(KEY_BYTES))
        return ServerKey(_read_key_file(path))
    except OSError as error:
        raise SetupError(f"The server key file {path} cannot be used: {error.strerror}.") from error


def _read_key_file(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & _WIDER_THAN_OWNER_READ_WRITE:
            raise SetupError(
                f"The server key file {path} has mode {mode:04o}, wider than 0600.",
                hint=f"Run chmod 600 {path}.",
            )
        secret = file.read(KEY_BYTES + 1)
    if len(secret) != KEY_BYTES:
        raise SetupError(f"The server key file {path} must hold exactly {KEY_BYTES} bytes.")
    return secret


def write_key_file(path: Path, secret: bytes) -> None:
    """Write a key beside `path`, sync it, then link it into place: the file is either whole or absent.

    Raises:
        OSError: it cannot be written, or the file exists.
    """
    draft = path.with_name(f"{path.name}.{os.getpid()}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        try:
            os.write(descriptor, secret)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.link(draft, path)  # unlike a rename, this fails when the file exists
    finally:
        draft.unlink()
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make new names in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
