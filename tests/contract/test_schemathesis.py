"""Schemathesis, which nobody here wrote, makes requests up from `/openapi.json` and checks every answer against it.

Deterministic. With MEMORYROUTER_TEST_LONG=1 it tries every option at every route, and many more made-up requests.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import trio

from tests.contract.described import for_fuzzing, open_described
from tests.patience import PATIENCE_S
from tests.running import ROOT, Client

LONG = os.environ.get("MEMORYROUTER_TEST_LONG") == "1"
EXAMPLES_MAX = 100 if LONG else 3
OPTIONS_AT = None if LONG else ("/v1/memory/search",)
TIMEOUT_S = 3_600 if LONG else 900  # for a machine that does much else
CONFIGURATION = """
[checks]
# Clients send their SDKs' own objects: what is strange in them is passed over, or the provider's to refuse.
negative_data_rejection.enabled = false
# A model's name may hold anything, so one path answers to several templates: `/v1/models/x:generateContent`.
allow_header_conformance.enabled = false

[[operations]]
include-path = "/v1/chat/completions"
# What has no counterpart in Messages is refused when a chat is translated: roles, kinds of parts.
checks.positive_data_acceptance.enabled = false

[[operations]]
include-operation-id = "delete_memories"
# Without any filter it is refused, which no schema of parameters can say.
checks.positive_data_acceptance.enabled = false
"""
"""All other checks are on: no 5xx, status, content type, shape, headers, methods, keys."""


async def run_schemathesis(server: Client, folder: Path) -> subprocess.CompletedProcess[bytes]:
    """Its command line in a process of its own, as an operator would run it."""
    document = msgspec.json.decode((await server.get("/openapi.json", key="")).content)
    described = trio.Path(folder / "openapi.json")
    await described.write_bytes(msgspec.json.encode(for_fuzzing(document, options_at=OPTIONS_AT)))
    configuration = trio.Path(folder / "schemathesis.toml")
    await configuration.write_text(CONFIGURATION)
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(configuration)),
        *("run", str(described), "--url", server.url),
        *("--header", f"Authorization: Bearer {server.key}"),
        *("--phases", "examples,coverage,fuzzing", "--max-examples", str(EXAMPLES_MAX), "--generation-deterministic"),
        *("--workers", "1", "--request-timeout", str(PATIENCE_S), "--suppress-health-check", "all"),
        *("--continue-on-failure", "--no-shrink", "--no-color", "--warnings", "off"),
    ]
    environment = {"SCHEMATHESIS_HOOKS": "tests.contract.schemathesis_hooks", "PYTHONPATH": str(ROOT)}
    with trio.fail_after(TIMEOUT_S):
        return await trio.run_process(
            command,
            cwd=folder,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_stdout=True,
            stderr=subprocess.STDOUT,
            check=False,
        )


async def test_no_made_up_request_gets_an_answer_that_is_not_described(tmp_path: Path) -> None:
    """No 5xx; statuses, content types, shapes and headers as documented; no route without its key."""
    async with open_described(tmp_path) as server:
        done = await run_schemathesis(server, tmp_path)
        metrics = (await server.get("/metrics")).text

    output = done.stdout.decode(errors="replace")
    assert done.returncode == 0, output
    for route in ("/v1/chat/completions", "/v1/messages", "/v1/memory/upload", "/v1beta/models/<path:target>"):
        assert f'memoryrouter_requests_total{{route="{route}",status="200"}}' in metrics, "nothing got through"
