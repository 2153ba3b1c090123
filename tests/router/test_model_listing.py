"""The list of models: asked of providers that have a key, remembered for its account, never a reason to fail."""

from __future__ import annotations

import msgspec
import pytest
import trio
import trio.testing

from models.errors import CorruptRow
from models.memory import LOCAL_RECALL_MODEL
from models.provider_settings import Secret
from router import model_listing
from router.model_listing import CATALOGUE_AGE_MAX_S, FAILURE_AGE_MAX_S, ModelListing
from router.plans import StoredKeys
from router.upstream import open_upstream
from tests.fakes.provider import FakeProvider, Script, open_dead_provider, open_fake_provider
from tests.patience import PATIENCE_S, pass_time_until, wait_until

LOCAL = {"local": [LOCAL_RECALL_MODEL]}


def listing_of(*names: str) -> Script:
    return Script(body=msgspec.json.encode({"object": "list", "data": [{"id": name} for name in names]}))


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a provider that hangs is too slow."""
    monkeypatch.setattr(model_listing, "PROVIDER_TIMEOUT_S", PATIENCE_S)


class Clock:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


async def list_models(
    listing: ModelListing, account: int = 1, stored: StoredKeys | None = None
) -> dict[str, list[str]]:
    with trio.fail_after(PATIENCE_S):
        return await listing.models(account, stored or StoredKeys())


def stored_key(text: str) -> StoredKeys:
    """An account that has stored a key for `openai`."""
    return StoredKeys(found={"openai": Secret(text)})


async def test_models_are_listed_as_clients_name_them() -> None:
    """With the prefix, unless the provider's own names have it; asked with the server's key unless one is stored."""
    async with open_fake_provider() as provider:
        own = provider.settings(api_key="sk-server")
        by_name = {
            "openai": own,
            "router": msgspec.structs.replace(own, prefixes=("r", "rr")),
            "vllm": msgspec.structs.replace(own, keep_prefix=True),
            "keyless": msgspec.structs.replace(own, api_key=Secret()),
        }
        provider.enqueue(*[listing_of("m-1", "m-2")] * 3)
        async with open_upstream(by_name) as upstream:
            models = await list_models(ModelListing(by_name, upstream))

    assert models == {
        **LOCAL, "openai": ["openai/m-1", "openai/m-2"], "router": ["r/m-1", "r/m-2"], "vllm": ["m-1", "m-2"],
    }  # fmt: skip
    assert {request.path for request in provider.requests} == {"/v1/models"}
    assert {request.headers["authorization"] for request in provider.requests} == {"Bearer sk-server"}


async def listed_twice(
    provider: FakeProvider, first: Script, second: Script, *, after_s: float
) -> list[dict[str, list[str]]]:
    by_name = {"openai": provider.settings(api_key="sk")}
    provider.enqueue(first, second)
    async with open_upstream(by_name) as upstream:
        clock = Clock()
        listing = ModelListing(by_name, upstream, clock=clock)
        answers = [await list_models(listing)]
        clock.now_s += after_s
        return [*answers, await list_models(listing)]


async def test_a_list_is_remembered_for_a_while() -> None:
    """And asked for again later."""
    async with open_fake_provider() as provider:
        early = await listed_twice(provider, listing_of("a"), listing_of("b"), after_s=CATALOGUE_AGE_MAX_S - 1)
        assert early[0] == early[1] == {**LOCAL, "openai": ["openai/a"]}
        assert len(provider.requests) == 1
    async with open_fake_provider() as provider:
        late = await listed_twice(provider, listing_of("a"), listing_of("b"), after_s=CATALOGUE_AGE_MAX_S)
        assert late[1] == {**LOCAL, "openai": ["openai/b"]}


@pytest.mark.parametrize(
    "failure",
    [
        Script(status=401, body=b'{"error": {"message": "no"}}'),
        Script(status=500, body=b"<html>"),
        Script(body=b"[1, 2]"),
        Script(body=b'{"data": [1]}'),
        Script(body=b'{"data": 5}'),
        Script(body=b'{"data": ' + b"[" * 5_000 + b"]" * 5_000 + b"}"),
        Script(steps=[b"half"], ending="cut_in_chunk"),
    ],
    ids=["401", "500", "list", "numbers", "number", "deep", "cut"],
)
async def test_a_provider_that_gives_no_list_is_left_out_and_soon_asked_again(failure: Script) -> None:
    """Its models must not stay hidden for as long as a good list is kept."""
    async with open_fake_provider() as provider:
        answers = await listed_twice(provider, failure, listing_of("a"), after_s=FAILURE_AGE_MAX_S)
    assert answers == [LOCAL, {**LOCAL, "openai": ["openai/a"]}]


async def test_an_older_list_stands_in_for_a_provider_that_is_down() -> None:
    """Clients keep the models that they had."""
    async with open_fake_provider() as provider:
        answers = await listed_twice(
            provider, listing_of("a"), Script(status=500, body=b""), after_s=CATALOGUE_AGE_MAX_S
        )
    assert answers == [{**LOCAL, "openai": ["openai/a"]}] * 2


async def test_an_unreachable_provider_is_left_out() -> None:
    """Nothing listens there."""
    async with open_dead_provider() as dead, open_upstream({"openai": dead}) as upstream:
        assert await list_models(ModelListing({"openai": dead}, upstream)) == LOCAL


async def test_a_provider_that_hangs_is_left_out_in_time(
    mock_clock: trio.testing.MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are listed all the same."""
    monkeypatch.setattr(model_listing, "PROVIDER_TIMEOUT_S", 3.0)
    answers: list[dict[str, list[str]]] = []
    async with open_fake_provider() as hanging, open_fake_provider() as answering:
        by_name = {"slow": hanging.settings(api_key="sk"), "fast": answering.settings(api_key="sk")}
        hanging.enqueue(Script(hang=True))
        answering.enqueue(listing_of("a"))
        async with open_upstream(by_name) as upstream, trio.open_nursery() as asking:
            listing = ModelListing(by_name, upstream)

            async def ask() -> None:
                answers.append(await list_models(listing))

            asking.start_soon(ask)
            await wait_until(lambda: len(listing._known) == 1 and bool(hanging.requests))
            await pass_time_until(mock_clock, lambda: bool(answers), step_s=3)
    assert answers == [{**LOCAL, "fast": ["fast/a"]}]


async def test_each_wire_format_lists_its_models_in_its_own_place() -> None:
    """Google writes `models/` before the names, which no client does."""
    async with open_fake_provider() as provider:
        own = msgspec.structs.replace(
            provider.settings(api_key="sk-server"), base_url=provider.base_url.removesuffix("/v1")
        )
        for wire_format, names, credential in (
            ("anthropic", ["claude-9"], ("x-api-key", "sk-server")),
            ("google", ["models/gemini-9"], ("authorization", "Bearer sk-server")),
        ):
            by_name = {wire_format: msgspec.structs.replace(own, format=wire_format)}
            provider.enqueue(listing_of(*names))
            async with open_upstream(by_name) as upstream:
                models = await list_models(ModelListing(by_name, upstream))
            assert models == {**LOCAL, wire_format: [f"{wire_format}/{names[0].removeprefix('models/')}"]}
            assert provider.requests[-1].headers[credential[0]] == credential[1]
    assert [request.path.partition("?")[0] for request in provider.requests] == ["/v1/models", "/v1beta/openai/models"]


async def test_a_list_belongs_to_the_account_and_to_the_key() -> None:
    """Another account gets its own, even with the same key; a new key is asked for anew; the server's is shared."""
    async with open_fake_provider() as provider:
        by_name = {"openai": provider.settings(api_key="sk-server")}
        async with open_upstream(by_name) as upstream:
            listing = ModelListing(by_name, upstream)
            for account, stored, asks in (
                (1, stored_key("sk-1"), True),
                (1, stored_key("sk-1"), False),
                (2, stored_key("sk-1"), True),
                (1, stored_key("sk-2"), True),
                (1, StoredKeys(), True),
                (2, StoredKeys(), False),
                (1, stored_key("sk-1"), False),
            ):
                before = len(provider.requests)
                if asks:
                    provider.enqueue(listing_of(f"m-{before}"))
                listed = await list_models(listing, account, stored)
                assert len(provider.requests) - before == asks
                if asks:
                    assert listed == {**LOCAL, "openai": [f"openai/m-{before}"]}
    keys = [request.headers["authorization"] for request in provider.requests]
    assert keys == ["Bearer sk-1", "Bearer sk-1", "Bearer sk-2", "Bearer sk-server"]


async def test_a_key_that_cannot_be_read_leaves_its_provider_out() -> None:
    """The server's key is not used in its place."""
    async with open_fake_provider() as provider:
        by_name = {"openai": provider.settings(api_key="sk-server")}
        async with open_upstream(by_name) as upstream:
            failed = StoredKeys(failed={"openai": CorruptRow("damaged")})
            assert await list_models(ModelListing(by_name, upstream), 1, failed) == LOCAL
    assert provider.requests == []


async def test_what_is_remembered_is_bounded() -> None:
    """By names, over all accounts; who has not asked for longest is forgotten, a failure counts as well."""
    async with open_fake_provider() as provider:
        by_name = {"openai": provider.settings()}
        async with open_upstream(by_name) as upstream:
            listing = ModelListing(by_name, upstream, names_max=6)
            for account in range(20):
                provider.enqueue(listing_of("a", "b") if account % 2 else Script(status=500, body=b""))
                await list_models(listing, account, stored_key("sk"))
            assert sum(max(len(known.models), 1) for known in listing._known.values()) <= 6
            assert listing._names <= 6
            before = len(provider.requests)
            await list_models(listing, 19, stored_key("sk"))
            assert len(provider.requests) == before
            provider.enqueue(listing_of("c"))
            assert await list_models(listing, 1, stored_key("sk")) == {**LOCAL, "openai": ["openai/c"]}
