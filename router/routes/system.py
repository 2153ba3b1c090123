"""The server itself: health, metrics, the API's description, models."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import trio
from quart import Blueprint, Response, request

from models.errors import ModelNotFound, StoreUnavailable
from models.memory import LOCAL_RECALL_MODEL
from models.server_settings import is_loopback
from models.times import format_time
from models.version import VERSION
from router.components import Components
from router.metrics import METRICS_CONTENT_TYPE
from router.model_listing import ModelListing
from router.provider_keys import find_stored_keys
from router.requests import json_response, read_caller, read_owner
from router.worker_answers import metrics_page

SIZE_TIMEOUT_S = 2.0
"""For counting what is stored, at a scrape: with 100 000 vaults it takes some 30 ms, in threads."""


def system_routes(components: Components) -> Blueprint:
    """The blueprint of everything that is neither memory nor chat."""
    routes = Blueprint("system", __name__)
    api = _SystemApi(components)
    routes.get("/")(api.index)
    routes.get("/livez")(api.livez)
    routes.get("/readyz")(api.readyz)
    routes.get("/health")(api.health)
    routes.get("/metrics")(api.metrics)
    routes.get("/openapi.json")(api.openapi)
    routes.get("/v1/models")(api.models)
    routes.get("/v1/models/<path:name>")(api.model)
    return routes


class _SystemApi:
    """The handlers, over the components."""

    def __init__(self, components: Components) -> None:
        self._parts = components
        self._listing = ModelListing(components.settings.providers.by_name, components.upstream)

    async def index(self) -> Response:
        """What this is."""
        return json_response(
            {
                "name": "MemoryRouter",
                "version": VERSION,
                "runtime": "trio",
                "status": "ok",
                "storage": "sqlite",
                "docs": "/openapi.json",
                "endpoints": {"chat": "/v1/chat/completions", "memory": "/v1/memory/prepare"},
            }
        )

    async def livez(self) -> Response:
        """The process answers."""
        return json_response({"status": "ok"})

    async def readyz(self) -> Response:
        """Whether requests would be served; 503 with the reasons while not, also while draining."""
        parts = self._parts.readiness.parts(writes=_asked_for("writes"))
        missing = {part: state.reason for part, state in parts.items() if state.status == "not ready"}
        degraded = {part: state.reason for part, state in parts.items() if state.status == "degraded"}
        body: dict[str, Any] = {
            "status": "not ready" if missing else "ready",
            "missing": missing,
            "degraded": degraded,
        }
        if _asked_for("verbose"):
            body["parts"] = parts
        return json_response(body, 503 if missing else 200)

    async def health(self) -> Response:
        """The hosted product's health shape."""
        body = {
            "status": "healthy",
            "timestamp": format_time(self._parts.now_ms()),
            "environment": "self-hosted",
            "storage": "sqlite",
        }
        return json_response({**body, "version": VERSION})

    async def metrics(self) -> Response:
        """Prometheus' text format. It names routes, providers and numbers, no keys; who reads it is a setting."""
        settings = self._parts.settings
        access = settings.metrics.access
        if access == "account" or (access == "auto" and not is_loopback(settings.server.host)):
            await read_owner(self._parts)
        await self._measure_store()
        return Response(await metrics_page(self._parts), content_type=METRICS_CONTENT_TYPE)

    async def _measure_store(self) -> None:
        """Count what is stored; where that takes too long or cannot be read, the last numbers stay."""
        metrics = self._parts.metrics
        with trio.move_on_after(SIZE_TIMEOUT_S), suppress(StoreUnavailable):
            size = await self._parts.store.size()
            metrics.vaults.value, metrics.memories.value = size.vaults, size.memories
            metrics.memories_bytes.value = size.content_bytes

    async def openapi(self) -> Response:
        """What every route takes and gives, for programs."""
        from router.openapi.document import openapi_json  # nine modules that few servers are ever asked for

        return Response(openapi_json(), content_type="application/json")

    async def models(self) -> Response:
        """Every model that this caller could name, in OpenAI's shape and in the hosted product's."""
        by_provider = await self._models_of_caller()
        return json_response(models_body(by_provider, created_s=int(time.time())))

    async def _models_of_caller(self) -> dict[str, list[str]]:
        account = (await read_caller(self._parts)).principal.account_number
        stored = await find_stored_keys(self._parts.store, account, self._parts.settings.providers.by_name)
        return await self._listing.models(account, stored)

    async def model(self, name: str) -> Response:
        """One of these models."""
        for provider, names in (await self._models_of_caller()).items():
            if name in names:
                return json_response(model_body(name, provider, created_s=int(time.time())))
        raise ModelNotFound(f"There is no model `{name[:100]}`.", hint="GET /v1/models lists them.")


def _asked_for(name: str) -> bool:
    """Whether the query has this name, with or without a value; `false` and `0` mean that it has not."""
    value = request.args.get(name)
    return value is not None and value.lower() not in ("false", "0")


def model_body(name: str, provider: str, *, created_s: int) -> dict[str, Any]:
    """One model in OpenAI's shape."""
    return {"id": name, "object": "model", "created": created_s, "owned_by": provider}


def models_body(by_provider: dict[str, list[str]], *, created_s: int) -> dict[str, Any]:
    """Both published shapes in one object."""
    names = [name for models in by_provider.values() for name in models]
    return {
        "object": "list",
        "data": [
            model_body(name, provider, created_s=created_s)
            for provider, models in by_provider.items()
            for name in models
        ],
        "providers": [{"provider": provider, "models": models} for provider, models in by_provider.items()],
        "models": names,
        "default": names[0] if names else LOCAL_RECALL_MODEL,
        "catalog_updated": format_time(created_s * 1000),
    }
