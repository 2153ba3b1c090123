"""Clients that put the version twice or not at all reach the same routes."""

from __future__ import annotations

import pytest

from router.paths import canonical_path


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        ("/memory/prepare", "/v1/memory/prepare"),
        ("/chat/completions", "/v1/chat/completions"),
        ("/models", "/v1/models"),
        ("/v1/v1/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/v1/keys", "/v1/keys"),
        ("/v1/v1beta/models/m:generateContent", "/v1beta/models/m:generateContent"),
        ("/v1beta/v1/models/m:generateContent", "/v1/models/m:generateContent"),
        ("/v1/memory/prepare", "/v1/memory/prepare"),
        ("/v1/models/openai/v1/v1", "/v1/models/openai/v1/v1"),
        ("/v1", "/v1"),
        ("/v1/", "/v1/"),
        ("/", "/"),
        ("/health", "/health"),
        ("/livez", "/livez"),
        ("/memoryx", "/memoryx"),
        ("//memory/prepare", "/v1/memory/prepare"),
        ("/v1//chat/completions", "/v1/chat/completions"),
        ("//v1//v1///memory//prepare/", "/v1/memory/prepare/"),
        ("/nothing/v1/keys", "/nothing/v1/keys"),
    ],
)
def test_paths_have_one_version(sent: str, meant: str) -> None:
    """The last one given; paths of other kinds stay as they are."""
    assert canonical_path(sent) == meant
