"""Which key goes to which provider: the request's, the account's, the server's, in this order."""

from __future__ import annotations

import pytest

from models.errors import CorruptRow, ModelNotFound, NoProviderKey, StoreUnavailable
from models.ids import Access, Principal, VaultNumber, VaultRef
from models.provider_settings import ProviderSettings, Secret
from models.settings import ProvidersSettings, Settings
from router.auth import Caller
from router.plans import Planner, StoredKeys
from router.providers.routing import Route

PRINCIPAL = Principal(key_number=1, account_number=1, kind="user", name="", vault=VaultRef(VaultNumber(1), 0))
DAMAGED = CorruptRow("damaged")


def provider(key: str = "") -> ProviderSettings:
    return ProviderSettings(base_url="https://provider.example/v1", api_key=Secret(key))


def planner(*, server_keys: bool = True, fallbacks: tuple[str, ...] = ("two/m", "three/m")) -> Planner:
    keys = {name: f"server-{name}" if server_keys else "" for name in ("one", "two", "three")}
    by_name = {name: provider(key) for name, key in keys.items()}
    return Planner(Settings(providers=ProvidersSettings(by_name=by_name), fallbacks={"one/m": fallbacks}))


def caller(key: str = "") -> Caller:
    return Caller(principal=PRINCIPAL, access=Access(), suffixed=False, provider_key=Secret(key))


def stored(**keys: str) -> StoredKeys:
    return StoredKeys(found={name: Secret(key) for name, key in keys.items()})


def planned(plans: Planner, own: str, keys: StoredKeys) -> list[tuple[str, str]]:
    """Providers with the keys that go there."""
    made = plans.plans("one/m", caller(own), keys, Route.chat_call, [])
    return [
        (plan.route.provider, next(value for name, value in plan.headers if name == "authorization")) for plan in made
    ]


def test_the_first_of_three_keys_counts() -> None:
    """Fallbacks never see the request's."""
    plans = planner()
    assert planned(plans, "", stored()) == [
        ("one", "Bearer server-one"), ("two", "Bearer server-two"), ("three", "Bearer server-three"),
    ]  # fmt: skip
    assert planned(plans, "", stored(one="own-one", three="own-three")) == [
        ("one", "Bearer own-one"), ("two", "Bearer server-two"), ("three", "Bearer own-three"),
    ]  # fmt: skip
    assert planned(plans, "sent", stored(one="own-one", two="own-two")) == [
        ("one", "Bearer sent"), ("two", "Bearer own-two"), ("three", "Bearer server-three"),
    ]  # fmt: skip


def test_without_any_key_the_error_says_where_one_could_be() -> None:
    """And fallbacks without one are passed over."""
    plans = planner(server_keys=False)
    with pytest.raises(NoProviderKey) as refused:
        plans.plans("one/m", caller(), stored(), Route.chat_call, [])
    assert "PUT /v1/providers/one/key" in refused.value.hint
    assert planned(plans, "sent", stored(three="own-three")) == [("one", "Bearer sent"), ("three", "Bearer own-three")]


@pytest.mark.parametrize("failure", [DAMAGED, StoreUnavailable("busy")])
def test_a_key_that_cannot_be_read_is_not_replaced_by_the_servers(failure: CorruptRow | StoreUnavailable) -> None:
    """An error for the model that was asked for; a fallback is passed over; who brings a key needs it not."""
    plans = planner()
    with pytest.raises(type(failure)):
        plans.plans("one/m", caller(), StoredKeys(failed={"one": failure}), Route.chat_call, [])
    assert planned(plans, "", StoredKeys(failed={"two": failure})) == [
        ("one", "Bearer server-one"), ("three", "Bearer server-three"),
    ]  # fmt: skip
    assert planned(plans, "sent", StoredKeys(failed={"one": failure}))[0] == ("one", "Bearer sent")


def test_only_keys_that_a_plan_may_need_are_asked_for() -> None:
    """Not that of the model itself if the request brings one; each provider once."""
    plans = planner(fallbacks=("two/m", "two/n", "one/n", "nobody/m"))
    assert plans.providers("one/m", Secret()) == ["one", "two"]
    assert plans.providers("one/m", Secret("sent")) == ["two", "one"]
    assert plans.providers("one/m", Secret("sent"), with_fallbacks=False) == []
    assert plans.providers("three/x", Secret()) == ["three"]
    assert plans.providers("nobody/m", Secret()) == []
    with pytest.raises(ModelNotFound):
        plans.plans("nobody/m", caller(), stored(), Route.chat_call, [])
