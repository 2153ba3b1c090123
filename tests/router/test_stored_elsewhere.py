"""A chat whose vault moves to another node before its reply ends is stored there, once, as if it had begun there."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest
import trio
from msgspec.structs import replace

from actors.cluster.operations import move
from actors.pin import Pin, Receipt
from models.errors import MemoryRouterError, NotOwner, QuotaExceeded, StoreUnavailable
from models.ids import Principal, VaultNumber, VaultRef
from models.memory import Exchange, Message
from router.forwarding import EPOCH, TOKEN, Request
from router.memory_quota import MemoryQuota
from router.node_answers import NodeAnswer
from router.providers.base import Reply
from router.stored_elsewhere import PATH, HandedOn, HandingOn, store_here
from tests.fakes.provider import Script, chat_events, open_fake_provider, stream_script
from tests.patience import PATIENCE_S
from tests.router.nodes import PARTS, at, open_nodes, owners, users
from tests.router.proxied import PATH as CHAT
from tests.router.proxied import streamed
from tests.router.test_chat_memory import Stage, open_stage
from tests.running import RawReply, object_of, open_reply, settings_for, user

REPLY = "Hello there."
VAULT = VaultRef(VaultNumber(7), 3)
PRINCIPAL = Principal(key_number=1, account_number=1, kind="user", name="", vault=VAULT)
SAID = Exchange(
    messages=(Message(role="user", content="My dog is called Rex.", final=True),), source="proxy", accepted_ms=1_000
)


async def swap(url: str) -> None:
    """Every partition goes to the other one of two nodes."""
    before = await trio.to_thread.run_sync(owners, url)
    for part, owner in enumerate(before):
        await trio.to_thread.run_sync(move, url, part, "a" if owner == "b" else "b")
    with trio.fail_after(PATIENCE_S):
        while True:
            now = await trio.to_thread.run_sync(owners, url)
            if all(owner not in (None, earlier) for owner, earlier in zip(now, before, strict=True)):
                return


def gated_reply(gate: trio.Event) -> Script:
    """A reply whose first piece comes at once, and the rest when the gate opens."""
    first, *rest = chat_events()
    return stream_script([first, gate, *rest])


async def read_all(reply: RawReply) -> bytes:
    """What is left of a reply."""
    received = b""
    while piece := await reply.next_data():
        received += piece
    return received


async def test_a_reply_that_ends_after_its_vault_has_moved_is_stored_by_the_new_owner(
    tmp_path: Path, postgres_url: str
) -> None:
    """Once, with source, model and session, and before the client sees the end of it. So is what a client left."""
    async with open_fake_provider() as provider:
        providers = settings_for(provider.settings()).providers
        async with open_nodes(tmp_path, postgres_url, "a", "b", providers=providers) as nodes:
            callers = await users(nodes[0], PARTS)
            async with AsyncExitStack() as stack:
                replies, gates = [], []
                for number, user in enumerate(callers):
                    gate = trio.Event()
                    provider.enqueue(gated_reply(gate))
                    body = {**streamed(f"my dog is called Rex {number}"), "session_id": f"s-{number}"}
                    reply = await stack.enter_async_context(open_reply(at(nodes[number % 2], user), CHAT, body))
                    await reply.next_data()
                    replies.append(reply)
                    gates.append(gate)
                await swap(postgres_url)
                left = callers.pop()
                await replies.pop().stream.aclose()
                for number, (user, reply, gate) in enumerate(zip(callers, replies, gates[:-1], strict=True)):
                    gate.set()
                    assert b"[DONE]" in await read_all(reply)
                    for node in nodes:
                        found = await at(node, user).search("dog called Rex hello", limit=10)
                        assert sorted((item["content"], item["source"], item["session_id"]) for item in found) == [
                            (REPLY, "proxy", f"s-{number}"),
                            (f"my dog is called Rex {number}", "proxy", f"s-{number}"),
                        ]
                    listed = object_of(await at(nodes[0], user).get("/v1/memories"))
                    assert {item["model"] for item in listed["memories"]} == {"openai/m"}
            with trio.fail_after(PATIENCE_S):
                while await at(nodes[0], left).contents("dog") != {f"my dog is called Rex {PARTS - 1}"}:
                    await trio.lowlevel.checkpoint()
            for node in nodes:
                page = (await node.http.get("/metrics")).text
                assert 'memoryrouter_not_stored_total{reason="' not in page


async def test_clients_find_nothing_where_nodes_hand_on(tmp_path: Path, postgres_url: str) -> None:
    async with open_nodes(tmp_path, postgres_url, "a") as (node,):
        body = msgspec.msgpack.encode(HandedOn(PRINCIPAL, VAULT, SAID, quotes=False))
        for headers in ({}, {TOKEN: "0" * 64, EPOCH: "1"}):
            assert (await node.post(PATH, body, headers=headers)).status_code == 404


class FakePin:
    """A pin whose submit fails, or whose commit does."""

    def __init__(self, *, refuses: MemoryRouterError | None = None, fails: MemoryRouterError | None = None) -> None:
        self.vault = VAULT
        self._refuses = refuses
        self._fails = fails

    def submit(self, exchanges: list[Exchange], *, failed: Any) -> Receipt:
        if self._refuses is not None:
            raise self._refuses
        commit = FakeCommit(self._fails)
        if self._fails is not None:
            failed()
        return Receipt(commit)


class FakeCommit:
    """A commit that is over."""

    def __init__(self, error: MemoryRouterError | None) -> None:
        self._error = error

    @property
    def durable(self) -> bool:
        return self._error is None

    async def wait_durable(self) -> None:
        if self._error is not None:
            raise self._error


class FakeAnswer:
    """A node's answer."""

    def __init__(self, status: int, code: str) -> None:
        self.status = status
        self._pieces = [code.encode()] if code else []

    async def receive(self) -> bytes:
        return self._pieces.pop() if self._pieces else b""

    async def aclose(self) -> None:
        pass


class FakeNodes:
    """Components and forwarder of a node whose vaults are elsewhere."""

    def __init__(self, status: int = 200, code: str = "", *, stale_s: float | None = None) -> None:
        self.sent: list[HandedOn] = []
        self.part = VAULT.shard
        self._answer = FakeAnswer(status, code)
        self._stale_s = stale_s
        self.supervisor = self
        self.settings = settings_for()

    def current(self, vault: VaultRef) -> VaultRef:
        return vault

    async def check_here(self, vault: VaultRef, hop: None) -> float:
        if self._stale_s is not None:
            return self._stale_s
        raise NotOwner("", owner_address="b:1")

    async def send_on(self, request: Request, part: int, *, address: str) -> NodeAnswer:
        assert (request.target, part, address) == (PATH, self.part, "b:1")
        self.sent.append(msgspec.msgpack.decode(request.body, type=HandedOn))
        return self._answer  # type: ignore[return-value]  # as far as it is used


async def handed_on(nodes: FakeNodes, pin: FakePin | None) -> tuple[Receipt, MemoryRouterError | None]:
    """A receipt that is settled, and what whoever waits for it hears."""
    async with trio.open_nursery() as tasks:
        handing_on = HandingOn(nodes, nodes, tasks)  # type: ignore[arg-type]  # as far as they are used
        as_pin: Pin | None = pin  # type: ignore[assignment]  # likewise
        receipt = handing_on.submit(as_pin, PRINCIPAL, SAID, quotes=True)
        heard = None
        try:
            await receipt.wait_durable(timeout_s=PATIENCE_S)
        except MemoryRouterError as error:
            heard = error
        await handing_on.wait_idle()
    return receipt, heard


@pytest.mark.parametrize(
    "pin",
    [None, FakePin(refuses=NotOwner("moved")), FakePin(fails=NotOwner("moved"))],
    ids=["before it was pinned", "before it was submitted", "before it was committed"],
)
async def test_what_is_another_nodes_is_sent_there_once(pin: FakePin | None) -> None:
    nodes = FakeNodes()
    receipt, heard = await handed_on(nodes, pin)
    assert heard is None
    assert receipt.durable
    assert nodes.sent == [HandedOn(PRINCIPAL, VAULT, SAID, quotes=True)]


async def test_what_is_stored_here_is_not_sent() -> None:
    nodes = FakeNodes()
    receipt, heard = await handed_on(nodes, FakePin())
    assert heard is None
    assert receipt.durable
    assert nodes.sent == []


async def test_what_may_be_stored_here_is_not_sent() -> None:
    """Whoever waits hears why it is not known."""
    nodes = FakeNodes()
    receipt, heard = await handed_on(nodes, FakePin(fails=StoreUnavailable("It may or may not be stored.")))
    assert isinstance(heard, StoreUnavailable)
    assert not receipt.durable
    assert nodes.sent == []


@pytest.mark.parametrize(("code", "kind"), [("payment_required", QuotaExceeded), ("unknown", StoreUnavailable)])
async def test_an_owner_that_refuses_is_asked_once(code: str, kind: type[MemoryRouterError]) -> None:
    nodes = FakeNodes(503, code)
    receipt, heard = await handed_on(nodes, None)
    assert isinstance(heard, kind)
    assert not receipt.durable
    assert len(nodes.sent) == 1


async def test_nobody_is_asked_while_nobody_owns_the_vault() -> None:
    """The lease is over, and no other owner is known: the database is down."""
    nodes = FakeNodes(stale_s=2.0)
    _, heard = await handed_on(nodes, FakePin(refuses=NotOwner("no lease")))
    assert isinstance(heard, NotOwner)
    assert nodes.sent == []


class NewOwner:
    """Of components, what the receiving end needs."""

    def __init__(self, stage: Stage) -> None:
        self.supervisor = stage.supervisor
        self.quota = MemoryQuota(stage.supervisor, memories_max=0, refused=lambda: None)


@pytest.mark.parametrize(("quotes", "kept"), [(True, 1), (False, 2)])
async def test_a_reply_that_may_repeat_an_erased_vault_is_not_kept_by_the_new_owner(quotes: bool, kept: int) -> None:
    """The user's own words are, in the vault that has taken its place."""
    said = replace(SAID, messages=(*SAID.messages, Message(role="assistant", content="Rex it is.", final=True)))
    async with open_stage() as stage:
        await stage.remember("My dog is called Rex.")
        await stage.supervisor.erase(stage.vault)
        principal = replace(PRINCIPAL, vault=stage.vault)
        what = HandedOn(principal, stage.vault, said, quotes=quotes)
        await store_here(NewOwner(stage), what)  # type: ignore[arg-type]  # as far as it is used
        assert (await stage.stats()).memories == kept


@pytest.mark.parametrize("owner", ["b:1", ""], ids=["known", "unknown"])
async def test_a_chat_whose_vault_has_left_before_it_is_pinned_is_handed_on_if_an_owner_is_known(owner: str) -> None:
    """Else the answer's head says at once that it is not stored: the database is down."""
    nodes = FakeNodes()

    def check_owned(part: int) -> None:
        raise NotOwner("It has left.", owner_address=owner)

    async with open_stage() as stage, trio.open_nursery() as tasks:
        stage.supervisor.check_owned = check_owned
        memory = stage.memory(user("My dog is called Rex."))
        memory._handing_on = HandingOn(nodes, nodes, tasks)  # type: ignore[arg-type]  # as far as they are used
        await memory.begin(budget_s=PATIENCE_S)
        assert (memory.status == "not_stored") == (not owner)
        nodes.part = stage.vault.shard
        receipt = memory.hand_off(Reply(text="Rex it is.", complete=True), model="openai/m")
        if owner:
            assert receipt is not None
            await receipt.wait_durable(timeout_s=PATIENCE_S)
            (sent,) = nodes.sent
            assert [said.content for said in sent.exchange.messages] == ["My dog is called Rex.", "Rex it is."]
            assert (sent.exchange.source, sent.exchange.model, sent.exchange.request_id) == (
                "proxy",
                "openai/m",
                "req_1",
            )
        else:
            assert receipt is None
        memory.close(model="openai/m")
