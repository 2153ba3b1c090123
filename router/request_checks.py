"""What is refused of a request before its route is asked: control characters in its path, hosts that are not served.

Pure functions of the request's head. Nothing else in this server reads `Host`: neither routes nor keys nor addresses in
answers come from it. In headers h11 has refused NUL and line breaks before. In a query they are text as any other, say
of a search: whatever of it goes into a header on either side is made printable there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from models.errors import MisdirectedRequest, NotFound

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PORT = re.compile(r":[0-9]*\Z")


def check_head(*, method: str, path: str, host: str, allowed_hosts: Iterable[str]) -> None:
    """Refuse what no client means.

    Args:
        path: decoded.
        host: the header.
        allowed_hosts: `server.allowed_hosts`; empty means all.

    Raises:
        NotFound: the path has a control character; nothing of ours is called so.
        MisdirectedRequest: the host is not served.
    """
    if _CONTROL.search(path):
        raise NotFound(f"There is no {method} on a path with control characters.")
    allowed = tuple(allowed_hosts)
    if allowed and host_name(host) not in {name.lower() for name in allowed}:
        raise MisdirectedRequest("This host is not served here.", hint="The operator sets server.allowed_hosts.")


def host_name(host: str) -> str:
    """A Host header without its port, in lower case, without the dot that may end a name."""
    return _PORT.sub("", host.strip()).lower().removesuffix(".")
