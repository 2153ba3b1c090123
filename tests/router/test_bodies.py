"""Bodies: bounded after decompression, decoded leniently where the world is lenient."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRequest, TooLarge, UnsupportedEncoding
from models.limit_settings import JSON_DEPTH_MAX
from router.bodies import decode_json, decode_object, decompress, replace_surrogates

BODY = b'{"query": "caf\xc3\xa9"}' * 100


@pytest.mark.parametrize("encoding", ["", "identity", " Identity "])
def test_a_plain_body_passes_up_to_the_limit(encoding: str) -> None:
    """One byte more is too large."""
    assert decompress(BODY, encoding, bytes_max=len(BODY)) == BODY
    with pytest.raises(TooLarge):
        decompress(BODY, encoding, bytes_max=len(BODY) - 1)


@pytest.mark.parametrize(
    ("encoding", "packed"),
    [
        ("gzip", gzip.compress(BODY)),
        ("x-gzip", gzip.compress(BODY)),
        (" GZIP", gzip.compress(BODY)),
        ("deflate", zlib.compress(BODY)),
    ],
    ids=["gzip", "x-gzip", "case", "deflate"],
)
def test_a_packed_body_is_limited_by_what_it_unpacks_to(encoding: str, packed: bytes) -> None:
    """And not by how small it came."""
    assert decompress(packed, encoding, bytes_max=len(BODY)) == BODY
    with pytest.raises(TooLarge):
        decompress(packed, encoding, bytes_max=len(BODY) - 1)


def test_a_gzip_bomb_is_refused_without_being_unpacked() -> None:
    """64 MiB of zeros come in 64 kB; only what the limit allows is ever in memory."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(compressor.compress(bytes(1 << 20)) for _ in range(64)) + compressor.flush()
    assert len(bomb) < 100_000

    with pytest.raises(TooLarge):
        decompress(bomb, "gzip", bytes_max=1 << 16)


def test_all_members_of_a_gzip_file_count() -> None:
    """`cat a.gz b.gz` is valid gzip: reading the first member only would lose lines of an upload in silence."""
    both = gzip.compress(BODY[:50]) + gzip.compress(BODY[50:])

    assert decompress(both, "gzip", bytes_max=len(BODY)) == BODY
    with pytest.raises(TooLarge):
        decompress(both, "gzip", bytes_max=len(BODY) - 1)


def test_many_gzip_members_are_refused() -> None:
    """Each costs a new decompressor and a copy of the rest."""
    with pytest.raises(InvalidRequest):
        decompress(gzip.compress(b"") * 1000, "gzip", bytes_max=1 << 20)


@pytest.mark.parametrize(
    "packed",
    [gzip.compress(BODY)[:-4], gzip.compress(BODY)[:30], b"not gzip", gzip.compress(BODY) + b"rest", BODY],
    ids=["no trailer", "cut", "text", "tail", "plain"],
)
def test_damaged_data_is_refused(packed: bytes) -> None:
    """Half of a body must not pass as the whole."""
    with pytest.raises(InvalidRequest):
        decompress(packed, "gzip", bytes_max=1 << 20)


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "utf-8"])
def test_other_encodings_are_named_as_unsupported(encoding: str) -> None:
    """415 and not a decoding error."""
    with pytest.raises(UnsupportedEncoding):
        decompress(BODY, encoding, bytes_max=1 << 20)


def test_an_empty_packed_body_is_empty() -> None:
    """Some clients name an encoding for a body that is not there."""
    assert decompress(b"", "gzip", bytes_max=10) == b""


@pytest.mark.parametrize(
    "body", [b"", b"{", b'{"a":}', b"nope", b'{"a":NaN}', b'{"a":Infinity}', b"\xff\xfe{\x00}\x00"]
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    """NaN and Infinity are no JSON either; neither is UTF-16."""
    with pytest.raises(InvalidRequest):
        decode_json(body)


@pytest.mark.parametrize("body", [b"[]", b"1", b'"text"', b"null", b"true"])
def test_a_body_must_be_an_object(body: bytes) -> None:
    """Every route takes one."""
    with pytest.raises(InvalidRequest):
        decode_object(body)


def test_a_byte_order_mark_is_no_obstacle() -> None:
    """Windows tools write one."""
    assert decode_object(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_lone_surrogates_come_through_as_replacement_characters() -> None:
    """In keys and values, at any depth; pairs are characters."""
    body = rb'{"a\ud800": ["\udc00x", {"b": "\ud83d\ude00 \ud83d"}]}'
    assert decode_object(body) == {"a\ufffd": ["\ufffdx", {"b": "\U0001f600 \ufffd"}]}


@pytest.mark.parametrize("depth", [JSON_DEPTH_MAX + 50, 5_000, 100_000])
@pytest.mark.parametrize("inside", ["1", '"\\ud800"'])
def test_deep_nesting_ends_in_an_answer(depth: int, inside: str) -> None:
    """Decoded or refused, never a crash; with surrogates, which take the slow path, too."""
    body = b'{"a":' + b"[" * depth + inside.encode() + b"]" * depth + b"}"
    try:
        decode_object(body)
    except InvalidRequest:
        return
    assert depth < 5_000


@given(st.text(alphabet=st.characters(codec=None) | st.characters(categories=["Cs"])))
def test_replacing_surrogates_changes_nothing_else(text: str) -> None:
    """One U+FFFD for each surrogate that is not half of a pair."""
    paired = re.sub("[\ud800-\udbff][\udc00-\udfff]", "\U0001f600", text)
    replaced = replace_surrogates(text)

    assert re.sub("[\U00010000-\U0010ffff]", "x", replaced) == re.sub(
        "[\U00010000-\U0010ffff]", "x", re.sub("[\ud800-\udfff]", "\ufffd", paired)
    )


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(json_values)
def test_valid_json_is_decoded_as_the_standard_decoder_does(value: Any) -> None:
    """Whichever of the two decoders does the work."""
    body = json.dumps(value).encode()
    assert decode_json(body) == json.loads(body)
