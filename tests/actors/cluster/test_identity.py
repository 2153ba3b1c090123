"""A node keeps its name in its data directory."""

from __future__ import annotations

from pathlib import Path

import pytest

from actors.cluster.identity import NODE_ID_FILE, identified, kept_node_id
from models.cluster_settings import ClusterSettings
from models.errors import SetupError


def test_a_name_is_made_once_and_kept(tmp_path: Path) -> None:
    name = kept_node_id(tmp_path / "data")
    assert kept_node_id(tmp_path / "data") == name
    assert kept_node_id(tmp_path / "other") != name


def test_a_name_that_is_set_wins(tmp_path: Path) -> None:
    settings = ClusterSettings(node_id="n1", address="[::1]:8080", zone="z", weight=2.0)
    identity = identified(settings, tmp_path)
    assert (identity.node_id, identity.address, identity.zone, identity.weight) == ("n1", "[::1]:8080", "z", 2.0)
    assert not (tmp_path / NODE_ID_FILE).exists()


@pytest.mark.parametrize("address", ["", "host", "http://host:1", "host:port", "a b:1"])
def test_an_address_is_host_and_port(tmp_path: Path, address: str) -> None:
    with pytest.raises(SetupError, match=r"cluster\.address"):
        identified(ClusterSettings(address=address), tmp_path)


def test_a_file_without_a_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / NODE_ID_FILE).write_text("two words\n", encoding="utf-8")
    with pytest.raises(SetupError, match="holds no name"):
        kept_node_id(tmp_path)
    (tmp_path / NODE_ID_FILE).write_bytes(b"\xff\xfe")
    with pytest.raises(SetupError, match="cannot be kept"):
        kept_node_id(tmp_path)
