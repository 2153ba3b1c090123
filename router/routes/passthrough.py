"""Routes without memory: legacy completions, embeddings, audio and images go to the model's provider and back as is."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from functools import partial

from quart import Blueprint, Response, g, request

from models.errors import UnsupportedEncoding
from router.auth import Caller
from router.body_budget import claim_of
from router.components import Components
from router.headers import HeaderList
from router.multipart import FormBeginning, boundary_of
from router.passing_through import (
    PATHS,
    Joined,
    PassedEvents,
    UploadChunks,
    call_of,
    pace_of,
    routed_name,
    with_model,
    with_resource_name,
)
from router.plans import Plan, Planner, StoredKeys
from router.provider_keys import find_stored_keys
from router.providers.request_parts import read_model, read_object
from router.providers.routing import Route
from router.requests import current_usage, offload, read_caller, read_json
from router.streaming import PulledBody, exits
from router.upstream import UpstreamResponse


def passthrough_routes(components: Components) -> Blueprint:
    """The blueprint of the routes without memory."""
    routes = Blueprint("passthrough", __name__)
    api = Passthrough(components)
    for path in PATHS:
        routes.post(path, endpoint=path.removeprefix("/v1/").replace("/", "_"))(partial(api.pass_through, path))
    return routes


class Passthrough:
    """The handlers, over the components."""

    def __init__(self, components: Components) -> None:
        self._parts = components
        self._planner = Planner(components.settings)

    async def pass_through(self, path: str) -> Response:
        """One request, as JSON or as a form, and the provider's reply."""
        began_s = time.perf_counter()
        caller = await read_caller(self._parts)
        g.response_headers = {"X-Memory-Status": "off"}
        boundary = boundary_of(request.headers.get("content-type", ""))
        if boundary is None:
            plan, reply = await self._send_json(path, caller)
        else:
            plan, reply = await self._send_form(path, caller, boundary)
        return await self._answer(plan, reply, began_s)

    async def gemini(self, version: str, model: str, method: str) -> Response:
        """One request to a method of a Gemini model that makes no text: counting and embedding."""
        began_s = time.perf_counter()
        caller = await read_caller(self._parts)
        g.response_headers = {"X-Memory-Status": "off"}
        raw = await read_json(self._parts)
        call = partial(Route.gemini_call, version=version, method=method, sse=False)
        stored = await self._stored_keys(model, caller)
        plan = self._planner.plan(model, caller.provider_key, stored, call, list(request.headers.items()))
        current_usage().name_model(model)
        body = with_resource_name(raw, model, plan.route.model)
        return await self._answer(plan, await self._call(plan, body, None), began_s)

    async def _answer(self, plan: Plan, reply: UpstreamResponse, began_s: float) -> Response:
        facts = [
            ("X-Memory-Status", "off"),
            ("X-Provider-Detected", plan.route.provider),
            ("X-Provider-Response-Ms", f"{(time.perf_counter() - began_s) * 1000:.1f}"),
            ("X-MR-Attempts", str(reply.attempts)),
        ]
        return await self._passed(reply, [*reply.headers, *facts])

    async def _stored_keys(self, model: str, caller: Caller) -> StoredKeys:
        providers = self._planner.providers(model, caller.provider_key, with_fallbacks=False)
        return await find_stored_keys(self._parts.store, caller.principal.account_number, providers)

    async def _plan(self, path: str, caller: Caller, model: str, content_type: str) -> Plan:
        routed = routed_name(model)
        plan = self._planner.plan(
            routed,
            caller.provider_key,
            await self._stored_keys(routed, caller),
            partial(call_of, path),
            list(request.headers.items()),
            content_type=content_type,
        )
        current_usage().name_model(model)
        return plan

    async def _send_json(self, path: str, caller: Caller) -> tuple[Plan, UpstreamResponse]:
        raw = await read_json(self._parts)
        members = await offload(self._parts, len(raw), read_object, raw)
        plan = await self._plan(path, caller, read_model(members), "application/json")
        body = with_model(raw, members, plan.route.model)
        return plan, await self._call(plan, body, None)

    async def _send_form(self, path: str, caller: Caller, boundary: bytes) -> tuple[Plan, UpstreamResponse]:
        """Read until the model is known; then the provider reads, and the client is read as fast as that."""
        if request.headers.get("content-encoding", "identity").strip().lower() not in {"", "identity"}:
            raise UnsupportedEncoding("A form must come without a Content-Encoding.")
        bytes_max = self._parts.settings.server.body_max_bytes
        timeout_s = self._parts.settings.server.body_timeout_s
        chunks = UploadChunks(request.body, pace_of(request.scope), bytes_max=bytes_max, timeout_s=timeout_s)
        form = FormBeginning(boundary, held_bytes_max=bytes_max)
        claim = claim_of(request.scope)
        async for chunk in chunks:
            await claim.add(len(chunk))
            if form.feed(chunk):
                break
        if form.model is None:
            form.end()
        plan = await self._plan(path, caller, form.model, request.headers["content-type"])
        model = plan.route.model
        length = request.content_length
        sent_bytes = None if length is None else length + form.growth_bytes(model)
        return plan, await self._call(plan, Joined(form.pieces(model), chunks), sent_bytes)

    async def _call(self, plan: Plan, body: bytes | AsyncIterator[bytes], body_bytes: int | None) -> UpstreamResponse:
        """Leaving the request, in whatever way, closes the call."""
        with current_usage().provider_time():
            return await exits().enter_async_context(
                self._parts.upstream.stream(
                    plan.route.provider, plan.call.path, headers=plan.headers, body=body, body_bytes=body_bytes
                )
            )

    async def _passed(self, reply: UpstreamResponse, headers: HeaderList) -> Response:
        chunks: AsyncIterator[bytes] = reply
        error = None
        if reply.status >= 400:
            error = await reply.read(bytes_max=self._parts.settings.proxy.reply_bytes_max)
        elif reply.is_event_stream:
            chunks = PassedEvents(reply, event_bytes_max=self._parts.settings.proxy.event_bytes_max)
        response = Response(PulledBody(chunks) if error is None else error, reply.status)
        response.headers.clear()
        for name, value in headers:
            response.headers.add(name, value)
        if error is not None:
            response.content_length = len(error)
        if reply.is_event_stream:
            response.headers["cache-control"] = "no-cache"
            response.headers["x-accel-buffering"] = "no"
        response.timeout = None  # the provider's idle timeout bounds it
        return response
