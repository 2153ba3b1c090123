"""`GET /v1/memory/export` and `POST /v1/memory/import`: one vault as a file, and back."""

from __future__ import annotations

from quart import Blueprint, Response, request

from models.errors import Forbidden
from models.exports import CONTENT_TYPE
from models.ids import parse_session_id
from router.components import Components
from router.exporting import import_messages, open_export, parse_export
from router.memory_answers import stored_body
from router.request_ids import current_request_id
from router.request_values import read_switch, whole_number
from router.requests import json_response, offload, read_body, read_caller, read_options
from router.streaming import PulledBody

PAGE_TIMEOUT_S = 60.0
"""For one page, with hydrating the vault before the first."""

SEQ_MAX = 2**53 - 1


def export_routes(components: Components) -> Blueprint:
    """The blueprint of export and import."""
    routes = Blueprint("export", __name__)
    api = _ExportApi(components)
    routes.get("/v1/memory/export")(api.export_vault)
    routes.post("/v1/memory/import")(api.import_vault)
    return routes


class _ExportApi:
    """The handlers, over the components."""

    def __init__(self, components: Components) -> None:
        self._parts = components

    async def export_vault(self) -> Response:
        """The caller's vault, or one session of it, as JSON lines; see `models.exports`."""
        caller = await read_caller(self._parts)
        caller.require_unsuffixed()
        options = read_options(self._parts, caller, {})
        if not options.access.read:
            raise Forbidden("This request may not read.", hint="Send it without a memory mode.")
        stream = await open_export(
            self._parts.supervisor,
            caller.principal.vault,
            now_ms=self._parts.now_ms(),
            after_seq=whole_number(request.args.get("after") or 0, "after", 0, SEQ_MAX),
            session_id=parse_session_id(request.args.get("session_id")) or options.session_id,
            vectors=read_switch(request.args.get("vectors", "").strip(), "vectors") is not False,
            timeout_s=PAGE_TIMEOUT_S,
        )
        response = Response(PulledBody(stream), content_type=CONTENT_TYPE)
        response.headers["cache-control"] = "no-store"
        response.headers["x-accel-buffering"] = "no"
        response.timeout = None  # of a large vault; every page has its own
        return response

    async def import_vault(self) -> Response:
        """Store what the vault does not know of an export, all or none. 200 means durable and findable by words."""
        caller = await read_caller(self._parts)
        options = read_options(self._parts, caller, {})
        if not options.access.write:
            raise Forbidden("This key or request may not write.", hint="Send the key without :read or :off.")
        body = await read_body(self._parts)
        messages = await offload(self._parts, len(body), parse_export, body, limits=self._parts.settings.memory)
        now_ms = self._parts.now_ms()
        stored = [imported.message for imported in messages]
        with await self._parts.quota.reserve(caller.principal, stored, source="import", now_ms=now_ms):
            applied = await import_messages(
                self._parts.supervisor,
                caller.principal.vault,
                messages,
                now_ms=now_ms,
                request_id=current_request_id(),
                principal=caller.principal,
            )
        return json_response(stored_body(applied, items=len(messages), key=caller.principal.shown))
