"""What an OpenAI-compatible provider wants otherwise in a Chat Completions body, and asking it for token counts.

Owns the edits that `fields_dropped`, `fields_renamed` and `ask_for_usage` of a provider's settings describe; which
vendor needs which is data in `models.provider_settings`. Works on bytes: members that no edit names leave as they came,
and a body without any edit leaves as the very same bytes. Pure functions.
"""

from __future__ import annotations

import msgspec

from models.provider_settings import ProviderSettings
from router.providers.json_bytes import join_object, split_object

_STREAM_OPTIONS = "stream_options"
_INCLUDE_USAGE = "include_usage"


class Tweaked(msgspec.Struct, frozen=True):
    """A body as its provider wants it.

    Attributes:
        body: encoded Chat Completions request.
        usage_added: token counts were asked for in the client's place: their event is not for the client to see
            (`router.usage_chunks`).
    """

    body: bytes
    usage_added: bool = False


def tweaked(body: bytes, provider: ProviderSettings) -> Tweaked:
    """The body with this provider's edits.

    A field is renamed only where the request does not have the provider's own name already; then it is left out.

    Args:
        body: a valid JSON object, as `ChatRequest.encode` makes it.
    """
    if not (provider.fields_dropped or provider.fields_renamed or provider.ask_for_usage):
        return Tweaked(body)
    members = split_object(body)
    edited = _renamed(members, provider.fields_renamed)
    usage_added = provider.ask_for_usage and _STREAM_OPTIONS not in provider.fields_dropped and _ask_for_usage(edited)
    for name in provider.fields_dropped:
        edited.pop(name, None)
    return Tweaked(body if edited == members else join_object(edited), usage_added)


def _renamed(members: dict[str, bytes], pairs: tuple[str, ...]) -> dict[str, bytes]:
    names = dict(pair.split("=") for pair in pairs)
    edited: dict[str, bytes] = {}
    for name, value in members.items():
        theirs = names.get(name)
        if theirs is None:
            edited[name] = value
        elif theirs not in members:
            edited[theirs] = value
    return edited


def _ask_for_usage(members: dict[str, bytes]) -> bool:
    """Add the option to a streamed request; False where that needs nothing, or where the options are no object."""
    if members.get("stream") != b"true":
        return False
    options = members.get(_STREAM_OPTIONS, b"null")
    try:
        inner = {} if options == b"null" else split_object(options)
    except ValueError:
        return False  # the provider will say what is wrong with it
    if inner.get(_INCLUDE_USAGE) == b"true":
        return False
    members[_STREAM_OPTIONS] = join_object({**inner, _INCLUDE_USAGE: b"true"})
    return True
