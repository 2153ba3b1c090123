"""Who this node is, and how it connects: what is the same for its whole life.

Owns the file with the node's name. Two servers must never run under one name: a copied data directory brings its name
along, so a name that is taken by a living node is refused (`actors.cluster.cluster`).
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path

from actors.cluster.membership import Identity
from actors.store.postgres.connection import PostgresConnection, open_connection
from actors.store.seal import sync_directory
from models.cluster_settings import ClusterSettings
from models.errors import SetupError
from models.version import VERSION

NODE_ID_FILE = "node_id"
NAME_BYTES = 8
CONNECT_TIMEOUT_S = 2
"""Shorter than what is left of a lease when it was renewed last; libpq takes no less."""
IDLE_IN_TRANSACTION_S = 1.0

_ADDRESS = re.compile(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}\Z")


def identified(settings: ClusterSettings, data_dir: Path) -> Identity:
    """This node as its settings and its data directory tell. Blocks.

    Raises:
        SetupError: the address is none, or the name cannot be read or kept.
    """
    if not _ADDRESS.match(settings.address):
        raise SetupError("cluster.address must be host:port, at which the other nodes reach this one.")
    return Identity(
        node_id=settings.node_id or kept_node_id(data_dir),
        address=settings.address,
        zone=settings.zone,
        version=VERSION,
        weight=settings.weight,
    )


def kept_node_id(data_dir: Path) -> str:
    """The name in the data directory; the first time, a new one. Blocks.

    Raises:
        SetupError: the file cannot be read or written, or holds no name.
    """
    path = data_dir / NODE_ID_FILE
    try:
        if not path.exists():
            _write(path, f"node-{secrets.token_hex(NAME_BYTES)}\n")
        name = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{path}: the node's name cannot be kept there: {error}.") from error
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        raise SetupError(f"{path} holds no name of a node.", hint="Remove it; the node gets a new one.")
    return name


def connecting(url: str) -> PostgresConnection:
    """A connection for statements of the cluster. Blocks."""
    return open_connection(url, idle_in_transaction_s=IDLE_IN_TRANSACTION_S, connect_timeout_s=CONNECT_TIMEOUT_S)


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
    sync_directory(path.parent)
