"""Who asks through the dashboard: the holder of the account key that a session was opened with, while that key lives.

Owns what a request needs beside its cookie, and how it may mean a vault of a user: only one of its own account, and
never unseen. Must never take a cookie for enough.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import msgspec
import trio

from models.accounts import Actor
from models.errors import Forbidden, MemoryRouterError, StoreUnavailable, Unauthenticated
from models.ids import Access, Principal
from models.provider_settings import Secret
from router.auditing import actor_of
from router.auth import LOOKUP_TIMEOUT_S, Caller
from router.components import Components
from router.dashboard.gate import BrowserRequest
from router.dashboard.origins import is_own_page
from router.dashboard.sessions import Session
from router.observe import log_event
from router.public_ids import number_of
from router.request_ids import current_request_id

VAULT_OPENED = "vault_opened"
SIGNED_IN = "dashboard_opened"


async def caller_of_session(
    components: Components, browser: BrowserRequest, headers: Mapping[str, str]
) -> tuple[Caller, Session]:
    """The caller of a request that came through the dashboard, on the vault that it means, and its session.

    Args:
        headers: by lower-case name.

    Raises:
        Unauthenticated: no live session, or its key is not live any more.
        Forbidden: the request is not known to come from our page.
        NotFound: the account has no such vault.
        StoreUnavailable: what has to be looked up or audited cannot be.
    """
    session, principal = await live_session(components, browser, headers)
    if not session.is_confirmed_by(browser.csrf):
        raise Forbidden("This page's session is not the one that is live.", hint="Reload the page.")
    caller = Caller(principal=principal, access=Access(), suffixed=False, provider_key=Secret())
    if browser.vault:
        caller = await _on_vault(components, session, caller, browser.vault)
    return caller, session


async def live_session(
    components: Components, browser: BrowserRequest | None, headers: Mapping[str, str]
) -> tuple[Session, Principal]:
    """The session that a request's cookie names, and whose it is. Enough to be told about, not to do anything.

    Raises:
        Unauthenticated, Forbidden, StoreUnavailable: see `caller_of_session`.
    """
    if browser is None:
        raise _signed_out()
    require_own_page(components, headers)
    sessions = components.dashboard.sessions
    session = sessions.find(browser.token)
    if session is None:
        raise _signed_out()
    with trio.move_on_after(LOOKUP_TIMEOUT_S) as waiting:
        principal = await components.store.find_key(session.key_hash)
    if waiting.cancelled_caught:
        raise StoreUnavailable("The session's key could not be looked up in time.")
    if principal is None or principal.kind != "account":
        sessions.end(browser.token)
        raise _signed_out()
    return session, principal


def require_own_page(components: Components, headers: Mapping[str, str]) -> None:
    """
    Raises:
        Forbidden: the request with these headers comes from a page of somebody else.
    """
    if not is_own_page(headers, hosts=components.settings.server.allowed_hosts):
        raise Forbidden("Pages of other origins may not use the dashboard.", hint="A proxy in front must pass on Host.")


async def _on_vault(components: Components, session: Session, caller: Caller, vault_id: str) -> Caller:
    """The same caller on a vault of its account. The first time is noted before anything of it is shown."""
    account = caller.principal.account_number
    record = await components.store.get_vault(account, number_of(vault_id, "vault"))
    number = record.vault.number
    if number != caller.principal.vault.number and not session.opened.get(number):
        await components.store.audit(
            at_ms=components.now_ms(),
            account_number=account,
            action=VAULT_OPENED,
            target=f"vault:{number}",
            by=actor_of(caller),
        )
        session.opened.put(number, True)
    return msgspec.structs.replace(caller, principal=msgspec.structs.replace(caller.principal, vault=record.vault))


async def note_signed_in(components: Components, principal: Principal) -> None:
    """Put it into the audit log. One that cannot be written now does not keep people out."""
    key = f"key:{principal.key_number}"
    try:
        await components.store.audit(
            at_ms=components.now_ms(),
            account_number=principal.account_number,
            action=SIGNED_IN,
            target=key,
            by=Actor(key, principal.account_number, current_request_id()),
        )
    except MemoryRouterError as error:
        log_event("not_audited", level=logging.ERROR, action=SIGNED_IN, code=error.code)


def _signed_out() -> Unauthenticated:
    return Unauthenticated("Nobody is signed in here.", hint="Sign in to the dashboard with an account key.")
