"""The server talks to nobody but the providers that it is told of.

The program starts in a process of its own, remembers, recalls and chats, and writes down every address that it connects
to, sends to or looks up: Python tells an audit hook of each, whichever of its libraries asks.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from tests.fakes.provider import open_fake_provider, reply_script
from tests.running import Client, open_http, open_process, user

WATCHER = """
import os, sys
_log = os.open(os.environ["WATCHED"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
_seen = {"socket.connect", "socket.sendto", "socket.sendmsg", "socket.getaddrinfo", "socket.gethostbyname"}
def _hook(event, args):
    if event in _seen:
        target = args[0] if "gethost" in event or "getaddr" in event else args[1]
        os.write(_log, f"{event}\\t{target}\\n".encode())
    elif event == "urllib.Request":
        os.write(_log, f"{event}\\t{args[0]}\\n".encode())
sys.addaudithook(_hook)
os.write(_log, b"watching\\tNone\\n")
"""


OURS = {("watching", "None"), ("socket.getaddrinfo", "127.0.0.1")}


def watched(log: Path) -> list[tuple[str, str]]:
    """Events and where they go, of child processes too. To turn an address into itself, as for the one to listen on,
    asks nobody."""
    lines = [line.split("\t") for line in log.read_text(encoding="utf-8").splitlines()]
    assert ["watching", "None"] in lines
    return [(event, target) for event, target in lines if (event, target) not in OURS]


async def test_start_remember_recall_and_chat_reach_the_provider_and_nobody_else(tmp_path: Path) -> None:
    """No telemetry, no update check, no model to download, no name looked up."""
    (tmp_path / "sitecustomize.py").write_text(WATCHER, encoding="utf-8")
    log = tmp_path / "watched"
    async with open_fake_provider() as provider:
        provider.enqueue(reply_script("Rex."))
        environment = {
            "PYTHONPATH": str(tmp_path),
            "WATCHED": str(log),
            "MEMORYROUTER_PROVIDERS__OPENAI__BASE_URL": provider.base_url,
            "MEMORYROUTER_PROVIDERS__OPENAI__API_KEY": "sk-1",
        }
        async with open_process(tmp_path / "data", environment=environment) as server, open_http(server.url) as http:
            client = Client(http, server.account_key)
            await client.ingest("My dog is called Rex.")
            await client.wait_embedded()
            assert "Rex" in (await client.prepare("What is my dog called?"))["context"]
            assert await client.search("dog")
            before = watched(log)
            assert (await client.chat(user("What is my dog called?"))).status_code == 200
            during = watched(log)[len(before) :]
        port = urlsplit(provider.base_url).port

    assert before == [], "before the chat: nobody at all"
    assert set(during) == {("socket.connect", f"('127.0.0.1', {port})")}
