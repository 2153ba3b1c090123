"""The configurations of nginx and Caddy in docs/operating.md, run by what of the two is installed.

Changed are the names of the machine, its certificate and the ports; nothing else.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import msgspec
import pytest
import trio

from models.limit_settings import LimitSettings
from tests.documents.blocks import read_blocks
from tests.fakes.certificates import SelfSigned
from tests.fakes.provider import chat_events, gated, open_fake_provider, stream_script
from tests.patience import PATIENCE_S
from tests.running import ROOT, open_server, settings_for

INSTALLED = [name for name in ("nginx", "caddy") if shutil.which(name)]
FORGED = ("203.0.113.9", "203.0.113.10")


def configuration(program: str, folder: Path, server: str, port: int, certificate: SelfSigned) -> tuple[str, list[str]]:
    """The block of the document for this machine, and the command that runs it."""
    (text,) = [block.text for block in read_blocks(ROOT / "docs" / "operating.md") if block.language == program]
    text = text.replace("127.0.0.1:8080", server)
    file = folder / "proxy.conf"
    if program == "caddy":
        head = f"{{\n    auto_https disable_redirects\n    admin off\n    storage file_system {folder}\n}}\n"
        keys = f"    tls {certificate.certificate} {certificate.key}\n"
        text = head + text.replace("memory.example.org {\n", f"https://127.0.0.1:{port} {{\n{keys}", 1)
        return text, ["caddy", "run", "--config", str(file), "--adapter", "caddyfile"]
    text = text.replace("listen 443", f"listen 127.0.0.1:{port}")
    text = re.sub(r"(ssl_certificate) \S+;", rf"\1 {certificate.certificate};", text)
    text = re.sub(r"(ssl_certificate_key) \S+;", rf"\1 {certificate.key};", text)
    paths = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = f"daemon off;\npid {folder}/pid;\nevents {{}}\nhttp {{\naccess_log off;\n{paths}{text}}}\n"
    return text, ["nginx", "-c", str(file), "-e", "stderr"]


@asynccontextmanager
async def open_proxy(program: str, folder: Path, server: str) -> AsyncIterator[httpx.AsyncClient]:
    """Connections to the server through the proxy, once it listens."""
    certificate = SelfSigned(folder)
    with trio.socket.socket() as free:
        await free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    text, command = configuration(program, folder, server, port, certificate)
    (folder / "proxy.conf").write_text(text, encoding="utf-8")
    process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL, cwd=folder)
    try:
        async with httpx.AsyncClient(
            base_url=f"https://127.0.0.1:{port}", verify=False, http2=True, trust_env=False, timeout=PATIENCE_S
        ) as http:
            with trio.fail_after(PATIENCE_S):
                while not await _answers(http):
                    assert process.returncode is None
            yield http
    finally:
        process.terminate()
        with trio.CancelScope(shield=True), trio.move_on_after(PATIENCE_S):
            await process.wait()


async def _answers(http: httpx.AsyncClient) -> bool:
    await trio.lowlevel.checkpoint()
    try:
        return (await http.get("/livez")).is_success
    except httpx.ConnectError:
        return False


@pytest.mark.parametrize("program", INSTALLED)
async def test_the_proxy_passes_streams_on_and_says_who_called(program: str, tmp_path: Path) -> None:
    """A stream's first chunk comes before its last is sent, bodies of 20 MB pass, and no caller forges an address."""
    limits = LimitSettings(trusted_proxies=("127.0.0.1",), failed_auth_per_minute=1, failed_auth_burst=1)
    async with open_fake_provider() as provider:
        settings = settings_for(provider.settings(), limits=limits)
        async with open_server(tmp_path / "data", settings) as client:
            folder = tmp_path / "proxy"
            folder.mkdir()
            async with open_proxy(program, folder, client.url.removeprefix("http://")) as http:
                key = {"Authorization": f"Bearer {client.key}"}
                gates = [trio.Event() for _ in chat_events()]
                gates[0].set()
                provider.enqueue(stream_script(gated(chat_events(), gates)))
                asked = {"model": "openai/m", "messages": [{"role": "user", "content": "Hello?"}], "stream": True}
                with trio.fail_after(PATIENCE_S):
                    async with http.stream("POST", "/v1/chat/completions", json=asked, headers=key) as answer:
                        assert answer.http_version == "HTTP/2"
                        chunks = answer.aiter_bytes()
                        assert b"Hel" in await anext(chunks)
                        for gate in gates:
                            gate.set()
                        rest = b"".join([chunk async for chunk in chunks])
                assert rest.endswith(b"data: [DONE]\n\n")
                large = msgspec.json.encode({"query": "dog", "padding": "x" * 20_000_000})
                assert (await http.post("/v1/memory/search", content=large, headers=key)).status_code == 200
                wrong = [{"Authorization": "Bearer mk_wrong", "X-Forwarded-For": address} for address in FORGED]
                assert [(await http.get("/v1/keys", headers=one)).status_code for one in wrong] == [401, 429]
