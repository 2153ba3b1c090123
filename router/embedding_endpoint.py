"""An embedding model behind an OpenAI-compatible `POST /embeddings`.

Owns the call: its limits, how a reply is checked, and whether a failure is the endpoint's or the texts'. What an
endpoint sends is not believed: its size, how many vectors it holds, their length and their numbers are looked at. Must
never follow a redirect, send the key anywhere else, or log a key or a text.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx
import msgspec
import numpy as np
import trio
from numpy.typing import NDArray

from actors.embedding_source import BatchLimits, EmbedderUnavailable, Encode
from models.embedder_settings import EmbedderSettings
from models.embedding import ForeignModel, TextModel, mended
from router.observe import log_event

PROBE = "A short text."
"""What no model refuses: tells an endpoint that is out of order from one that refuses a certain text."""

DIMS_MAX = 16_384
NUMBER_BYTES_MAX = 40
"""Of one number in JSON with its comma; the longest that is usual has 24."""

REPLY_OVERHEAD_BYTES = 65_536
CHARACTERS_PER_TOKEN = 8
"""A text is cut at so many characters for each token that the model reads: endpoints refuse what is far too long."""

BATCH_CHARACTERS_MAX = 200_000
CONNECT_TIMEOUT_S = 5.0
DOWN_FIRST_S = 1.0
DOWN_LAST_S = 30.0
CLOSE_TIMEOUT_S = 2.0

Floats = NDArray[np.float32]


class TextsRefused(ValueError):
    """The endpoint works, but not for these texts."""


class _Refused(Exception):
    """The endpoint answered, and not with vectors: the texts may be why."""


class _Item(msgspec.Struct):
    embedding: list[float]
    index: int | None = None


class _Reply(msgspec.Struct):
    data: list[_Item]


_decode = msgspec.json.Decoder(_Reply).decode


class EndpointSource:
    """An `EmbeddingSource` over HTTP. It is open from the beginning where its settings say how long vectors are."""

    may_stall = True

    def __init__(
        self,
        name: str,
        settings: EmbedderSettings,
        tokenizer: TextModel,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._settings = settings
        self._clock = clock
        self._down_until_s = 0.0
        self._down_s = 0.0
        self._reason = ""
        self.batches = BatchLimits(
            texts_max=settings.batch_texts_max,
            characters_max=BATCH_CHARACTERS_MAX,
            running_max=settings.calls_max,
            bulk_running_max=settings.calls_max,
            bulk_beside_questions_max=settings.calls_max,
        )
        self.model = ForeignModel(tokens_max=settings.tokens_max, tokenizer=tokenizer)
        if settings.dims:
            self._learn(settings.dims)
        connections = 2 * settings.calls_max + 1  # both lanes and the opening: nobody ever queues in the pool
        self._client = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(settings.timeout_s, connect=min(CONNECT_TIMEOUT_S, settings.timeout_s)),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
        )

    @property
    def is_open(self) -> bool:
        """Whether the length of vectors is known, and with it the model's id."""
        return self.model.dims > 0

    async def open(self) -> None:
        """Find out how long the vectors are."""
        if not self.is_open:
            try:
                self._learn((await self._call([PROBE])).shape[1])
            except _Refused as error:
                raise EmbedderUnavailable(str(error)) from None

    def lane(self) -> Encode:
        """The lanes differ in nothing here; each runs `calls_max` calls at once."""
        return self._embed

    async def aclose(self) -> None:
        """Close all connections."""
        with trio.move_on_after(CLOSE_TIMEOUT_S, shield=True):
            await self._client.aclose()

    def _learn(self, dims: int) -> None:
        settings = self._settings
        described = (settings.base_url, settings.model, settings.tokens_max, settings.query_prefix)
        digest = hashlib.sha256(msgspec.json.encode([*described, settings.document_prefix, settings.dims])).hexdigest()
        self.model = msgspec.structs.replace(self.model, id=f"{self._name}-{digest[:16]}-{dims}", dims=dims)

    async def _embed(self, texts: Sequence[str]) -> Floats:
        """Vectors of texts.

        Raises:
            EmbedderUnavailable: the endpoint is out of order, or was a moment ago.
            TextsRefused: it is not, but it makes no vectors of these texts.
        """
        down_s = self._down_until_s - self._clock()
        if down_s > 0:
            raise EmbedderUnavailable(self._reason, retry_after_s=down_s)
        try:
            vectors = await self._call_or_blame(texts)
        except EmbedderUnavailable as error:
            raise self._down(str(error)) from None
        if self._down_s:
            log_event("embedder_answers_again", embedder=self._name)
            self._down_s = 0.0
        return vectors

    async def _call_or_blame(self, texts: Sequence[str]) -> Floats:
        try:
            return await self._call(texts)
        except _Refused as error:
            reason = str(error)
        try:
            await self._call([PROBE])
        except _Refused:
            raise EmbedderUnavailable(reason) from None
        raise TextsRefused(reason)

    def _down(self, reason: str) -> EmbedderUnavailable:
        """Leave the endpoint alone for a while, longer each time; said in the log once, as long as the reason stays."""
        if not self._down_s or reason != self._reason:
            log_event("embedder_unavailable", level=logging.ERROR, embedder=self._name, reason=reason)
        self._down_s = min(DOWN_LAST_S, self._down_s * 2 or DOWN_FIRST_S)
        self._down_until_s = self._clock() + self._down_s
        self._reason = reason
        return EmbedderUnavailable(reason, retry_after_s=self._down_s)

    async def _call(self, texts: Sequence[str]) -> Floats:
        """One call; unit vectors, one a text.

        Raises:
            EmbedderUnavailable: whatever the texts, this cannot succeed now.
            _Refused: the answer holds no vectors for these texts.
        """
        with trio.move_on_after(self._settings.timeout_s):
            try:
                status, body = await self._post(texts)
            except httpx.HTTPError as error:
                raise EmbedderUnavailable(f"The endpoint cannot be reached: {type(error).__name__}.") from None
            except httpx.InvalidURL:
                raise EmbedderUnavailable("The endpoint's URL is not valid.") from None
            if status in (401, 403):
                raise EmbedderUnavailable(f"The endpoint refuses the key: status {status}.")
            if status in (408, 429, 502, 503, 504):
                raise EmbedderUnavailable(f"The endpoint is busy or down: status {status}.")
            if status != 200:
                raise _Refused(f"The endpoint answered with status {status}.")
            return self._vectors(body, len(texts))
        raise EmbedderUnavailable(f"The endpoint took longer than {self._settings.timeout_s:g} s.")

    async def _post(self, texts: Sequence[str]) -> tuple[int, bytes]:
        """Status and body of the answer; of one that is no success, the body is not read."""
        settings = self._settings
        longest = settings.tokens_max * CHARACTERS_PER_TOKEN
        request: dict[str, Any] = {"model": settings.model, "input": [mended(text[:longest]) for text in texts]}
        if settings.dims:
            request["dimensions"] = settings.dims
        headers = {"content-type": "application/json", "accept-encoding": "identity"}
        if settings.api_key:
            headers["authorization"] = f"Bearer {settings.api_key.reveal()}"
        bytes_max = REPLY_OVERHEAD_BYTES + len(texts) * (self.model.dims or DIMS_MAX) * NUMBER_BYTES_MAX
        url = f"{settings.base_url}/embeddings"
        content = _Body(msgspec.json.encode(request))
        headers["content-length"] = str(content.size_bytes)
        async with self._client.stream("POST", url, content=content, headers=headers) as response:
            if response.status_code != 200:
                return response.status_code, b""
            if response.headers.get("content-encoding", "identity") != "identity":
                raise _Refused("The endpoint compressed its answer, though it was asked not to.")
            body = bytearray()
            chunks = response.aiter_raw()
            async for chunk in chunks:
                body += chunk
                if len(body) > bytes_max:
                    await _abandon(chunks)
                    raise _Refused(f"The endpoint's answer is larger than {bytes_max} bytes.")
        return 200, bytes(body)

    def _vectors(self, body: bytes, count: int) -> Floats:
        try:
            items = _decode(body).data
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _Refused("The endpoint's answer is no list of vectors.") from None
        if len(items) != count:
            raise _Refused(f"The endpoint sent {len(items)} vectors for {count} texts.")
        if all(item.index is not None for item in items):
            items.sort(key=lambda item: item.index or 0)
            if [item.index for item in items] != list(range(count)):
                raise _Refused("The endpoint numbered its vectors wrongly.")
        dims = {len(item.embedding) for item in items}
        wanted = self.model.dims
        if len(dims) != 1 or not 0 < max(dims) <= DIMS_MAX:
            raise _Refused("The endpoint sent vectors of different lengths, or of none.")
        if wanted and dims != {wanted}:
            raise EmbedderUnavailable(f"The endpoint sent vectors of length {max(dims)}, not {wanted}.")
        with np.errstate(over="ignore"):
            vectors = np.array([item.embedding for item in items], dtype=np.float32)
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        if not np.isfinite(lengths).all() or not (lengths > 0).all():
            raise _Refused("The endpoint sent a vector of nothing, or of what is no number.")
        return np.asarray(vectors / lengths, dtype=np.float32)


class _Body:
    """A request's body. httpx's own is an async generator, which a cancelled call would leave halfway."""

    def __init__(self, body: bytes) -> None:
        self._left = [body]
        self.size_bytes = len(body)

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        return self._left.pop()


async def _abandon(chunks: AsyncIterator[bytes]) -> None:
    """Leave a body halfway: resumed under cancellation, the generators inside httpx unwind one by one."""
    with trio.CancelScope() as scope:
        scope.cancel()
        async for _ in chunks:
            pass
