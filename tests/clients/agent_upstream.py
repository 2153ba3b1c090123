"""A provider for coding agents: it has them call the tools of a plan, one a reply, and then says hello.

How far a conversation has come is counted by the results of tools in it. The model's name does not matter.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from tests.clients.replies import encode, events, response_object
from tests.clients.upstream import Call, Upstream, read_call
from tests.fakes.claude import claude_end, claude_start, claude_tool
from tests.fakes.provider import Recorded, Script

_EVENTS = [("content-type", "text/event-stream")]


class ToolCall(msgspec.Struct, frozen=True):
    """A tool to be called.

    Attributes:
        namespace: of the tool, in Responses; "" for none.
    """

    name: str
    arguments: dict[str, Any]
    namespace: str = ""


class AgentUpstream(Upstream):
    """What `open_agent_provider` yields."""

    def __init__(self, port: int, plan: Sequence[ToolCall]) -> None:
        super().__init__(port)
        self._plan = plan

    def script_for(self, recorded: Recorded) -> Script:
        """The next call of the plan, if there is one."""
        call = read_call(recorded)
        if not call.body.get("tools") or (done := len(tool_results(call))) >= len(self._plan):
            return super().script_for(recorded)
        make = {"messages": _messages_call, "responses": _responses_call}[call.format]
        return Script(headers=_EVENTS, steps=make(self._plan[done], done))


def tool_results(call: Call) -> list[str]:
    """What tools have given so far, as JSON, in order."""
    if call.format == "responses":
        items = [item for item in call.body["input"] if item.get("type") == "function_call_output"]
        return [encode(item["output"]).decode() for item in items]
    contents = [message["content"] for message in call.body["messages"] if isinstance(message["content"], list)]
    parts = [part for content in contents for part in content]
    return [encode(part["content"]).decode() for part in parts if part["type"] == "tool_result"]


def _messages_call(tool: ToolCall, number: int) -> list[bytes]:
    return [claude_start(), *claude_tool(0, tool.name, encode(tool.arguments).decode()), *claude_end("tool_use")]


def _responses_call(tool: ToolCall, number: int) -> list[bytes]:
    item = {"id": f"fc_{number}", "type": "function_call", "call_id": f"call_{number}", "name": tool.name}
    item |= {"arguments": encode(tool.arguments).decode(), "status": "completed"}
    item |= {"namespace": tool.namespace} if tool.namespace else {}
    begun, ended = response_object("", status="in_progress"), {**response_object(""), "output": [item]}
    listed: list[dict[str, Any]] = [
        {"type": "response.created", "response": begun},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "arguments": ""}},
        {"type": "response.output_item.done", "output_index": 0, "item": item},
        {"type": "response.completed", "response": ended},
    ]
    return events([{**event, "sequence_number": number} for number, event in enumerate(listed)], named=True)


@asynccontextmanager
async def open_agent_provider(*plan: ToolCall) -> AsyncIterator[AgentUpstream]:
    """The provider on a free port of 127.0.0.1."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    upstream = AgentUpstream(listeners[0].socket.getsockname()[1], plan)
    async with trio.open_nursery() as connections:
        connections.start_soon(trio.serve_listeners, upstream.serve, listeners)
        yield upstream
        connections.cancel_scope.cancel(reason="the test is over")
