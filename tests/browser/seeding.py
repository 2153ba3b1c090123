"""Vaults with something in them, for tests of the screens that show it."""

from __future__ import annotations

from typing import Any

from tests.browser.serving import Account

HOSTILE = "<script>window.broken = 1</script><img src=x onerror='window.broken = 2'> & <b>bold</b> {{7*7}}"
"""What a memory might hold to become a part of the page."""

SAID_MS = 1_763_700_000_000
HOUR_MS = 3_600_000


class Vault:
    """A user's vault of an account."""

    def __init__(self, account: Account, name: str = "user:alice") -> None:
        created = account.mint(name)
        self.account = account
        self.name = name
        self.key: str = created["key"]
        self.id: str = created["vault_id"]

    def upload(self, *texts: str, **fields: Any) -> None:
        """Store these texts, an hour between them."""
        self.account.upload(
            [{"content": text, "timestamp": SAID_MS + at * HOUR_MS, **fields} for at, text in enumerate(texts)],
            key=self.key,
        )

    def remember(self, text: str) -> str:
        """Store one text by a request of its own, whose id is returned."""
        stored = self.account.call("POST", "/v1/memories", {"content": text}, key=self.key)
        return str(stored["request_id"])

    def texts(self) -> list[str]:
        """What it holds, newest first."""
        return [memory["content"] for memory in self.account.memories(key=self.key)]
