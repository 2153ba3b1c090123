"""What workers tell each other about themselves, and what one of them makes of it for a client.

Owns the questions by name (`router.siblings` carries them). Must never answer with anything that a worker cannot know
by itself at once: who asks has a second for all of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from router.components import Components
from router.dashboard.inspecting import CHAT, told_chat
from router.dashboard.overview import OVERVIEW, told_overview
from router.metric_pages import merge, read_pages
from router.server_metrics import OF_ALL_WORKERS
from router.siblings import AnswersSiblings
from router.watched_metrics import WORKERS

METRICS = "metrics"

App = Callable[[Any, Any, Any], Awaitable[None]]


def answering_siblings(app: App, components: Components) -> App:
    """The application, which also answers what other workers ask; itself where there are none."""
    if components.siblings is None:
        return app

    async def metrics(_: str) -> bytes:
        return components.metrics.render().encode()

    async def overview(account: str) -> bytes:
        return told_overview(components, int(account))

    async def chat(asked: str) -> bytes:
        return await told_chat(components, asked)

    replies = {METRICS: metrics, OVERVIEW: overview, CHAT: chat}
    return AnswersSiblings(app, components.siblings, replies)


async def metrics_page(components: Components) -> str:
    """The text of `/metrics`: of this server alone, or of all its workers that answer."""
    own, siblings = components.metrics.render(), components.siblings
    if siblings is None:
        return own
    texts = {siblings.share.index: own}
    for worker, text in (await siblings.ask_all(METRICS)).items():
        texts[worker] = text.decode("utf-8", "replace")
    pages = read_pages(texts)
    workers = [
        ((str(worker),), {"up": int(worker in pages), "restarts": restarts})
        for worker, restarts in enumerate(siblings.restarts())
    ]
    lines = [*merge(pages, own=siblings.share.index, once=OF_ALL_WORKERS), *WORKERS.lines(workers)]
    return "\n".join(lines) + "\n"
