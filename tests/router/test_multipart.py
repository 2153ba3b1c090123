"""The model of a form is found as soon as it is there and replaced; every other byte stays."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import InvalidRequest, TooLarge
from router.multipart import MODEL_BYTES_MAX, PART_HEAD_BYTES_MAX, FormBeginning, boundary_of
from tests.fakes.provider import rechunk

_BOUNDARY = b"x-boundary"
_FILE = b'Content-Disposition: form-data; name="file"; filename="model"\r\nContent-Type: audio/wav\r\n\r\n'


def field(name: str, value: bytes) -> bytes:
    return b'Content-Disposition: form-data; name="' + name.encode() + b'"\r\n\r\n' + value


def form(*parts: bytes, preamble: bytes = b"") -> bytes:
    opened = b"".join(b"--" + _BOUNDARY + b"\r\n" + part + b"\r\n" for part in parts)
    return preamble + opened + b"--" + _BOUNDARY + b"--\r\n"


def feed(data: bytes, sizes: list[int], *, held_bytes_max: int = 10**6) -> tuple[FormBeginning, bytes]:
    """The beginning, and what is left of the data once the model is known."""
    beginning = FormBeginning(_BOUNDARY, held_bytes_max=held_bytes_max)
    chunks = iter(rechunk(data, sizes))
    for chunk in chunks:
        if beginning.feed(chunk):
            break
    else:
        beginning.end()
    return beginning, b"".join(chunks)


@given(
    before=st.lists(st.binary(max_size=50), max_size=3),
    after=st.binary(max_size=50),
    model=st.text(min_size=1, max_size=20).filter(lambda text: bool(text.strip()) and "\r" not in text),
    preamble=st.sampled_from([b"", b"\r\n", b"This is a form.\r\n"]),
    sizes=st.lists(st.integers(1, 60), max_size=40),
)
def test_only_the_model_changes_whatever_the_chunks(
    before: list[bytes], after: bytes, model: str, preamble: bytes, sizes: list[int]
) -> None:
    parts = [field(f"field{n}", value) for n, value in enumerate(before)]

    def whole(name: str) -> bytes:
        return form(*parts, field("model", name.encode()), _FILE + after, preamble=preamble)

    beginning, rest = feed(whole(model), sizes)

    assert beginning.model == model
    assert b"".join(beginning.pieces("whisper-1")) + rest == whole("whisper-1")
    assert beginning.growth_bytes("whisper-1") == len(whole("whisper-1")) - len(whole(model))


def test_the_model_is_known_before_the_file_has_come() -> None:
    data = form(field("model", b"openai/whisper-1"), _FILE + b"RIFF")
    beginning = FormBeginning(_BOUNDARY, held_bytes_max=10**6)

    assert beginning.feed(data[: data.index(b'name="file"')])
    assert beginning.model == "openai/whisper-1"


def test_a_file_that_comes_first_is_held_until_the_model_is_known() -> None:
    """OpenAI's Node SDK and curl send fields in the order in which they are written down."""
    audio = bytes(range(256)) * 1000
    data = form(_FILE + audio, field("model", b"openai/whisper-1"), field("language", b"en"))

    beginning, rest = feed(data, [65536] * 3)

    assert b"".join(beginning.pieces("whisper-1")) + rest == data.replace(b"openai/whisper-1", b"whisper-1")


def test_what_is_held_is_bounded() -> None:
    data = form(_FILE + b"x" * 5000, field("model", b"whisper-1"))

    with pytest.raises(TooLarge, match="too large"):
        feed(data, [100] * 60, held_bytes_max=4000)


@pytest.mark.parametrize(
    "head",
    [
        b"content-disposition:form-data;name=model\r\n\r\n",
        b'Content-Type: text/plain\r\nCONTENT-DISPOSITION: form-data; name="model"\r\n\r\n',
        b'Content-Disposition: form-data; name="model"; x="a;b"\r\nContent-Length: 3\r\n\r\n',
    ],
)
def test_a_field_may_be_written_in_several_ways(head: bytes) -> None:
    beginning, _ = feed(form(b"\r\nno headers", head + b"m-1"), [])

    assert beginning.model == "m-1"


def test_a_boundary_may_be_followed_by_spaces() -> None:
    data = form(field("model", b"m-1")).replace(_BOUNDARY + b"\r\n", _BOUNDARY + b" \t\r\n")

    assert feed(data, [])[0].model == "m-1"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        form(),
        form(field("prompt", b"x")),
        form(field("model", b"")),
        form(field("model", b" ")),
        form(field("model", b"\xff")),
        form(_FILE + b"model"),
        form(b'Content-Disposition: form-data; name="file"; filename="x"\r\nX: name="model"\r\n\r\nm'),
        form(field("model", b"m"))[:-20],
    ],
)
def test_a_form_without_a_model_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        feed(data, [])

    assert caught.value.field == "model"


@pytest.mark.parametrize(
    "data",
    [
        b"x" * (PART_HEAD_BYTES_MAX + 100),
        b"--" + _BOUNDARY + b"x\r\n",
        b"--" + _BOUNDARY + b"\r\n" + b"x" * (PART_HEAD_BYTES_MAX + 100),
        form(field("model", b"m" * (MODEL_BYTES_MAX + 100))),
    ],
)
def test_what_is_no_form_is_refused(data: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        feed(data, [500] * 50)

    assert caught.value.field == "body"


def test_boundaries_are_read_from_the_content_type() -> None:
    assert boundary_of("multipart/form-data; boundary=abc") == b"abc"
    assert boundary_of('Multipart/Form-Data; charset=x; boundary="a b=c"') == b"a b=c"
    assert boundary_of("application/json") is None
    assert boundary_of("") is None
    for wrong in ("", "; boundary=", "; boundary=" + "x" * 71, '; boundary="ends in space "', '; boundary="\xe4"'):
        with pytest.raises(InvalidRequest):
            boundary_of("multipart/form-data" + wrong)
