"""An OpenAI-compatible embeddings endpoint on a real loopback socket, which answers as it is told to.

Its vectors are those of `HashEmbedding`, twice as long as they should be: whoever reads them must normalise.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import h11
import msgspec
import trio

from models.embedder_settings import EmbedderSettings
from models.provider_settings import Secret
from tests.fakes.embedding import HashEmbedding

Answer = tuple[int, bytes]
KEY = "sk-embeddings"


class EmbeddingsServer:
    """The endpoint, while it runs.

    Attributes:
        calls: the texts of each call, in order.
        requests: the body of each call.
        headers: of the last call.
        answer: what to answer with instead of vectors; None for vectors.
        gate: calls wait for it before they are answered.
    """

    def __init__(self, dims: int) -> None:
        self.encoder = HashEmbedding(dims=dims)
        self.calls: list[list[str]] = []
        self.requests: list[dict[str, Any]] = []
        self.headers: dict[str, str] = {}
        self.answer: Callable[[list[str]], Answer | None] = lambda texts: None
        self.gate = trio.Event()
        self.gate.set()
        self.running = 0
        self.running_most = 0
        self.url = ""

    def settings(self, **fields: Any) -> EmbedderSettings:
        """Of an embedder that uses it."""
        given = {"base_url": self.url, "model": "hash", "api_key": Secret(KEY), "timeout_s": 60.0, **fields}
        return EmbedderSettings(kind="openai", **given)

    def vectors(self, texts: list[str]) -> list[list[float]]:
        """What it makes of texts."""
        return [[2 * float(value) for value in row] for row in self.encoder.encode(texts)]

    def reply(self, vectors: list[list[Any]]) -> Answer:
        """A proper answer with these vectors, in reverse order: their numbers tell which is which."""
        data = [{"object": "embedding", "index": index, "embedding": row} for index, row in enumerate(vectors)]
        return 200, msgspec.json.encode({"object": "list", "model": "hash", "data": data[::-1]})

    async def handle(self, stream: trio.SocketStream) -> None:
        """One call; the connection closes after it."""
        wire = h11.Connection(h11.SERVER)
        request, body = None, b""
        while not isinstance(event := wire.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                wire.receive_data(await stream.receive_some())
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            else:
                return  # the client went away
        assert request is not None
        self.headers = {name.decode(): value.decode() for name, value in request.headers}
        assert (request.method, request.target) == (b"POST", b"/v1/embeddings")
        self.requests.append(msgspec.json.decode(body))
        texts = self.requests[-1]["input"]
        self.calls.append(texts)
        self.running += 1
        self.running_most = max(self.running_most, self.running)
        try:
            await self.gate.wait()
        finally:
            self.running -= 1
        status, data = self.answer(texts) or self.reply(self.vectors(texts))
        head = h11.Response(
            status_code=status,
            headers=[("content-type", "application/json"), ("content-length", str(len(data))), ("connection", "close")],
        )
        try:
            await stream.send_all((wire.send(head) or b"") + (wire.send(h11.Data(data=data)) or b""))
        except trio.BrokenResourceError:
            return  # it would not read so much


@asynccontextmanager
async def open_embeddings_server(*, dims: int = 24) -> AsyncIterator[EmbeddingsServer]:
    """Serve for the length of the block."""
    server = EmbeddingsServer(dims)
    async with trio.open_nursery() as serving:
        listeners = await serving.start(partial(trio.serve_tcp, server.handle, 0, host="127.0.0.1"))
        server.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
        yield server
        serving.cancel_scope.cancel(reason="the test is over")
