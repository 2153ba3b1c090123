"""Content of Chat Completions messages as Anthropic's content blocks: text, images, files.

Owns the parts. Must not look into what it does not know: parts that are in Anthropic's own form already pass as they
are. Works on decoded values.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any
from urllib.parse import unquote_to_bytes

from models.errors import InvalidRequest

Block = dict[str, Any]

_CACHE_MARK = "cache_control"
_TEXT_TYPES = frozenset({"text", "input_text", "output_text"})
_OPENAI_TYPES = frozenset({"image_url", "input_image", "file", "input_file"})
_MEDIA_TYPES = {"image/jpg": "image/jpeg"}


def content_blocks(message: dict[str, Any], *, place: str) -> list[Block]:
    """The content of a message as blocks. Blank texts are left out, since Anthropic refuses them.

    Raises:
        InvalidRequest: neither string, array nor null, or a part that has no counterpart.
    """
    content = message.get("content")
    parts = [content] if isinstance(content, str) else content
    if parts is None:
        return []
    if not isinstance(parts, list):
        raise InvalidRequest(f"{place}.content must be a string, an array or null.", field=f"{place}.content")
    blocks: list[Block] = []
    for index, part in enumerate(parts):
        block = _block(part, place=f"{place}.content[{index}]")
        if block is not None:
            blocks.append(block)
    if blocks:
        mark_cache(blocks[-1], message.get(_CACHE_MARK))
    return blocks


def text_blocks(message: dict[str, Any], *, place: str) -> list[Block]:
    """As `content_blocks`, for roles that only have text.

    Raises:
        InvalidRequest: something else is among it.
    """
    blocks = content_blocks(message, place=place)
    if any(block["type"] != "text" for block in blocks):
        raise InvalidRequest(f"{place}.content may only hold text.", field=f"{place}.content")
    return blocks


def mark_cache(block: Block, mark: Any) -> Block:
    """The block, with this cache mark if there is one. A mark may stand on a message, a call or a part."""
    if isinstance(mark, dict):
        block[_CACHE_MARK] = mark
    return block


def _block(part: Any, *, place: str) -> Block | None:
    if isinstance(part, str):
        return _text(part)
    if not isinstance(part, dict) or not isinstance(part.get("type"), str):
        raise InvalidRequest(f"{place} must be an object with a type.", field=place)
    kind = part["type"]
    if kind in _TEXT_TYPES or kind == "refusal":
        text = part.get("refusal" if kind == "refusal" else "text")
        block = _text(text if isinstance(text, str) else "")
    elif kind in _OPENAI_TYPES:
        block = _image(part, place=place) if kind in {"image_url", "input_image"} else _file(part, place=place)
    elif kind in {"input_audio", "video_url"}:
        raise InvalidRequest(f"{place}: {kind} is not supported by Anthropic models.", field=place)
    else:
        return dict(part)
    return block if block is None else mark_cache(block, part.get(_CACHE_MARK))


def _text(text: str) -> Block | None:
    return {"type": "text", "text": text} if text.strip() else None


def _image(part: dict[str, Any], *, place: str) -> Block:
    image = part.get("image_url")
    url = image.get("url") if isinstance(image, dict) else image
    if not isinstance(url, str) or not url:
        raise InvalidRequest(f"{place}.image_url must have a url.", field=f"{place}.image_url")
    if not _is_data_url(url):
        return {"type": "image", "source": {"type": "url", "url": url}}
    return _attachment(url, title=None, place=f"{place}.image_url")


def _file(part: dict[str, Any], *, place: str) -> Block:
    file = part.get("file")
    source = file if isinstance(file, dict) else part
    data, file_id, name = (source.get(member) for member in ("file_data", "file_id", "filename"))
    title = name if isinstance(name, str) and name else None
    if isinstance(data, str) and data:
        if data.startswith(("http://", "https://")):
            return _document({"type": "url", "url": data}, title=title)
        is_bare = not _is_data_url(data)
        return _attachment(f"data:application/pdf;base64,{data}" if is_bare else data, title=title, place=place)
    if isinstance(file_id, str) and file_id:
        return _document({"type": "file", "file_id": file_id}, title=title)
    raise InvalidRequest(f"{place} must have file_data or file_id.", field=place)


def _is_data_url(url: str) -> bool:
    return url[:5].lower() == "data:"


def _attachment(url: str, *, title: str | None, place: str) -> Block:
    """What a `data:` URL holds (RFC 2397): an image, a text, or a document."""
    head, comma, data = url[5:].partition(",")
    media_type, *parameters = [word.strip().lower() for word in head.split(";")]
    media_type = _MEDIA_TYPES.get(media_type, media_type) or "text/plain"
    if not comma:
        raise InvalidRequest(f"{place} is not a data URL.", field=place)
    is_base64 = "base64" in parameters
    if media_type.startswith("text/"):
        text = _decode_text(data, is_base64=is_base64)
        return _document({"type": "text", "media_type": "text/plain", "data": text}, title=title)
    if not is_base64:
        data = base64.b64encode(unquote_to_bytes(data.encode("utf-8", "replace"))).decode()
    source = {"type": "base64", "media_type": media_type, "data": data}
    return {"type": "image", "source": source} if media_type.startswith("image/") else _document(source, title=title)


def _decode_text(data: str, *, is_base64: bool) -> str:
    raw = data.encode("utf-8", "replace")
    try:
        return (base64.b64decode(raw) if is_base64 else unquote_to_bytes(raw)).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return data


def _document(source: dict[str, Any], *, title: str | None) -> Block:
    block: Block = {"type": "document", "source": source}
    return block if title is None else {**block, "title": title}
