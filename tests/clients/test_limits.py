"""The vendors' SDKs with a key that has used its requests up: each raises its own rate limit error."""

from __future__ import annotations

from pathlib import Path

import pytest

from models.limit_settings import LimitSettings
from tests.clients.running import run_client
from tests.running import open_server, settings_for

SDKS = ["openai-3", "openai-1", "anthropic-2", "anthropic-0", "google-genai-3", "google-genai-1"]


@pytest.mark.parametrize("name", SDKS)
async def test_an_sdk_sees_its_own_rate_limit_error(tmp_path: Path, name: str) -> None:
    """And the seconds to wait, where it has a place for them."""
    settings = settings_for(limits=LimitSettings(requests_per_minute=1, requests_burst=1))
    async with open_server(tmp_path / "data", settings) as server:
        await run_client(name, "rate_limits.py", server, tmp_path)
