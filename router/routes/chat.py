"""Routes of the chat proxy: one for each wire format, all served by `router.proxying`."""

from __future__ import annotations

from functools import partial

from quart import Blueprint, Response, request

from models.errors import NotFound
from router.components import Components
from router.local_answers import LocalAnswers
from router.providers.anthropic_messages import ANTHROPIC_MESSAGES
from router.providers.gemini import GeminiFormat
from router.providers.openai_chat import OPENAI_CHAT
from router.providers.openai_responses import OPENAI_RESPONSES
from router.providers.routing import Route
from router.proxying import Proxy
from router.routes.passthrough import Passthrough

GENERATE, STREAM = "generateContent", "streamGenerateContent"
WITHOUT_MEMORY = ("countTokens", "embedContent", "batchEmbedContents")


def chat_routes(components: Components) -> Blueprint:
    """The blueprint of the chat proxy."""
    routes = Blueprint("chat", __name__)
    api = _ChatApi(components)
    routes.post("/v1/chat/completions")(api.completions)
    routes.post("/v1/responses")(api.responses)
    routes.post("/v1/messages")(api.messages)
    for version in ("v1", "v1beta"):
        routes.post(f"/{version}/models/<path:target>", endpoint=f"gemini_{version}", defaults={"version": version})(
            api.gemini
        )
    return routes


class _ChatApi:
    """The handlers, over the components."""

    def __init__(self, components: Components) -> None:
        self._proxy = Proxy(components)
        self._passthrough = Passthrough(components)
        self._local = LocalAnswers(components.now_ms)

    async def completions(self) -> Response:
        """OpenAI Chat Completions, streamed or not."""
        return await self._proxy.serve(OPENAI_CHAT, Route.chat_call, local=self._local.completions)

    async def responses(self) -> Response:
        """OpenAI Responses, streamed or not."""
        return await self._proxy.serve(OPENAI_RESPONSES, Route.responses_call, local=self._local.responses)

    async def messages(self) -> Response:
        """Anthropic Messages, streamed or not."""
        return await self._proxy.serve(ANTHROPIC_MESSAGES, Route.messages_call, local=self._local.messages)

    async def gemini(self, version: str, target: str) -> Response:
        """`MODEL:generateContent`, `MODEL:streamGenerateContent`, and what a model has that needs no memory."""
        model, _, method = target.rpartition(":")
        if model and method in WITHOUT_MEMORY:
            return await self._passthrough.gemini(version, model, method)
        if not model or method not in (GENERATE, STREAM):
            known = ", ".join((GENERATE, STREAM, *WITHOUT_MEMORY))
            raise NotFound(f"There is no {request.method} {request.path[:200]}.", hint=f"Methods: {known}.")
        sse = method == STREAM and request.args.get("alt") == "sse"
        wire_format = GeminiFormat(model=model, stream=method == STREAM, sse=sse)
        call_of = partial(Route.gemini_call, version=version, method=method, sse=sse)
        return await self._proxy.serve(wire_format, call_of, local=self._local.gemini)
