"""The Quart-Trio application: blueprints, error handlers, what is measured and said about every request.

No globals and no background tasks: everything that outlives a request is in the components. Routes never see an
exception of ours twice; it is turned into the caller's wire format here.
"""

from __future__ import annotations

import logging
import time

from quart import Response, g, request
from werkzeug.exceptions import HTTPException, RequestEntityTooLarge, RequestTimeout

from models.errors import InvalidRequest, MemoryRouterError, MethodNotAllowed, NotFound, NotOwner, TooLarge
from router.bodies import too_large
from router.components import Components
from router.cors import Cors
from router.dashboard.gate import API
from router.dashboard.noting import note_answer
from router.elsewhere import answer_elsewhere, put_stale_header
from router.observe import describe_error, log_event
from router.quart_app import App
from router.request_checks import check_head
from router.request_ids import current_request_id
from router.requests import put_limit_headers, read_caller, read_session
from router.routes.chat import chat_routes
from router.routes.dashboard import OPEN_DASHBOARD_PATHS, dashboard_routes
from router.routes.export import export_routes
from router.routes.keys import key_routes
from router.routes.mcp import mcp_routes
from router.routes.memories import memories_routes
from router.routes.memory import memory_routes
from router.routes.passthrough import passthrough_routes
from router.routes.providers import provider_routes
from router.routes.system import system_routes
from router.routes.usage import usage_routes
from router.spans import describe_request
from router.wire_errors import error_body, error_headers, error_status

OPEN_PATHS = OPEN_DASHBOARD_PATHS | {"/", "/livez", "/readyz", "/health", "/metrics", "/openapi.json"}
"""Routes that need no key; each tells nothing about a vault, a key or an account (`/metrics` asks, where it is set to).
Of the others only OPTIONS does without, which Quart answers itself with the methods that there are."""


def create_app(components: Components) -> App:
    """The application over these components."""
    app = App(__name__, static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = components.settings.server.body_max_bytes
    app.config["BODY_TIMEOUT"] = components.settings.server.body_timeout_s
    app.config["RESPONSE_TIMEOUT"] = None  # deadlines are ours, and streams have none
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.strict_slashes = False
    app.url_map.merge_slashes = False  # it would redirect, in HTML, to an address that the client made up
    for routes in (
        system_routes, key_routes, provider_routes, memory_routes, memories_routes, export_routes, chat_routes,
        passthrough_routes, usage_routes, mcp_routes, dashboard_routes,
    ):  # fmt: skip
        app.register_blueprint(routes(components))
    _add_error_handlers(app, components)
    _add_measurement(app, components)  # first, so that what the next three refuse or answer is measured, too
    _add_checks(app, components)
    _add_cors(app, Cors(components.settings.cors))
    _add_authentication(app, components)
    return app


def _add_error_handlers(app: App, components: Components) -> None:
    @app.errorhandler(MemoryRouterError)
    async def handle_own(error: MemoryRouterError) -> Response:
        components.metrics.errors.increment(error.code)
        return error_response(error)

    @app.errorhandler(NotOwner)
    async def handle_elsewhere(error: NotOwner) -> Response:
        try:
            return await answer_elsewhere(components, error)
        except MemoryRouterError as failure:
            return await handle_own(failure)

    @app.errorhandler(HTTPException)
    async def handle_http(error: HTTPException) -> Response:
        own = translate(error, body_max_bytes=components.settings.server.body_max_bytes)
        components.metrics.errors.increment(own.code)
        response = error_response(own)
        for name, value in error.get_headers():
            if name.lower() == "allow":  # RFC 9110 demands it of a 405
                response.headers["Allow"] = value
        return response

    @app.errorhandler(Exception)
    async def handle_bug(error: Exception) -> Response:
        components.metrics.errors.increment(MemoryRouterError.code)
        log_event("request_failed", level=logging.ERROR, path=request.path, error=describe_error(error))
        return error_response(MemoryRouterError("Internal server error.", hint="The server's log says more."))


def error_response(error: MemoryRouterError) -> Response:
    """An error in the format of the current request's path."""
    path = request.path
    return Response(
        error_body(error, path),
        error_status(error, path),
        headers={**getattr(g, "response_headers", {}), **error_headers(error)},
        content_type="application/json",
    )


def translate(error: HTTPException, *, body_max_bytes: int) -> MemoryRouterError:
    """Werkzeug's errors as ours."""
    if isinstance(error, RequestEntityTooLarge):
        return too_large(body_max_bytes)
    if isinstance(error, RequestTimeout):
        return InvalidRequest("The body did not arrive in time.", field="body")
    match error.code:
        case 404:
            return NotFound(
                f"There is no {request.method} {request.path[:200]}.", hint="See the README for the routes."
            )
        case 405:
            allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
            return MethodNotAllowed(f"{request.method} is not allowed here.", hint=f"Allowed: {allowed}.")
        case 413:
            return TooLarge("The request is too large.")
        case code if code is not None and 400 <= code < 500:
            return InvalidRequest("The request is malformed.")
        case _:
            return MemoryRouterError("Internal server error.")


def _add_measurement(app: App, components: Components) -> None:
    @app.before_request
    async def begin() -> None:
        g.began_s = time.perf_counter()

    @app.after_request
    async def end(response: Response) -> Response:
        rule, usage = request.url_rule, g.get("usage")
        route = rule.rule if rule is not None else "unknown"
        if usage is not None:
            components.metrics.added_seconds.observe(usage.answered(response.status_code), route)
        took_s = time.perf_counter() - g.began_s
        describe_request({"http.route": route})
        components.metrics.requests.increment(route, response.status_code)
        components.metrics.request_seconds.observe(took_s, route)
        note_answer(
            components,
            g.get("caller"),
            route=route,
            status=response.status_code,
            header=response.headers.get,
            took_s=took_s,
        )
        _put_request_id(response)
        put_limit_headers(response)
        put_stale_header(response)
        log_event(
            "request_done",
            level=logging.INFO if response.status_code < 500 else logging.WARNING,
            method=request.method,
            route=route,
            status=response.status_code,
            ms=round(took_s * 1000, 1),
        )
        return response


def _add_checks(app: App, components: Components) -> None:
    allowed_hosts = components.settings.server.allowed_hosts

    @app.before_request
    async def check() -> None:
        host = request.headers.get("host", "")
        check_head(method=request.method, path=request.path, host=host, allowed_hosts=allowed_hosts)


def _add_cors(app: App, cors: Cors) -> None:
    if not cors.is_on:
        return

    @app.before_request
    async def answer_preflight() -> Response | None:
        headers = cors.preflight(request.method, _plain_headers())
        return None if headers is None else Response(b"", 204, headers=headers)

    @app.after_request
    async def allow(response: Response) -> Response:
        response.headers.update(cors.answer(_plain_headers()))
        response.headers.add("Vary", "Origin")
        return response


def _add_authentication(app: App, components: Components) -> None:
    @app.before_request
    async def authenticate_first() -> None:
        """Default deny: a route whose handler forgot to ask for the key is closed all the same."""
        rule = request.url_rule
        if rule is not None and rule.rule not in OPEN_PATHS and request.method != "OPTIONS":
            await (read_session if rule.rule.startswith(f"{API}/") else read_caller)(components)


def _plain_headers() -> dict[str, str]:
    return {name.lower(): value for name, value in request.headers.items()}


def _put_request_id(response: Response) -> None:
    """Our id goes out, since it is the one in the logs; the provider's moves aside (reference/gateways.md 2f)."""
    ours, headers = current_request_id(), response.headers
    names = {name.lower() for name, _ in headers}  # to ask werkzeug for a header that is not there costs an exception
    if "x-request-id" in names:
        headers["x-upstream-request-id"] = headers.get("x-request-id", "")
        headers["x-request-id"] = ours
    else:
        headers.add("x-request-id", ours)
    if "request-id" not in names:  # where Anthropic's SDK looks; theirs stays there
        headers.add("request-id", ours)
