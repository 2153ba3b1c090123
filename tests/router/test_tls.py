"""TLS by two settings: what is spoken, what a wrong file says, and that all limits of connections hold behind it."""

from __future__ import annotations

import os
import signal
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from models.errors import SettingError
from models.server_settings import ServerSettings
from models.settings_loading import load_settings
from router.tls import HANDSHAKE_TIMEOUT_S, open_tls
from tests.fakes.certificates import SelfSigned
from tests.patience import PATIENCE_S, pass_time_until
from tests.router.test_server import GET, SETTINGS, Running, read_until, running


def with_tls(certificate: SelfSigned, settings: ServerSettings = SETTINGS) -> ServerSettings:
    return msgspec.structs.replace(
        settings, tls_certificate_file=str(certificate.certificate), tls_key_file=str(certificate.key)
    )


@asynccontextmanager
async def connected(server: Running, client: ssl.SSLContext) -> AsyncIterator[trio.SSLStream[trio.SocketStream]]:
    """A connection, the handshake done."""
    plain = await server.connect()
    async with trio.SSLStream(plain, client, server_hostname="127.0.0.1", https_compatible=True) as stream:
        await stream.do_handshake()
        yield stream


async def test_a_server_with_a_certificate_speaks_https(tmp_path: Path) -> None:
    """And says so in its address; the protocol is HTTP/1.1 and nothing else."""
    own = SelfSigned(tmp_path)
    client = own.client()
    client.set_alpn_protocols(["h2", "http/1.1"])
    async with running(with_tls(own)) as server:
        assert server.address.url == f"https://127.0.0.1:{server.address.port}"
        async with connected(server, client) as stream:
            assert stream.selected_alpn_protocol() == "http/1.1"
            for _ in range(2):
                await stream.send_all(GET % b"/")
                assert b"end" in await read_until(stream, b"end")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
async def test_old_versions_of_tls_are_refused(tmp_path: Path) -> None:
    """1.2 is the least."""
    own = SelfSigned(tmp_path)
    client = own.client()
    client.minimum_version = client.maximum_version = ssl.TLSVersion.TLSv1_1
    client.set_ciphers("ALL:@SECLEVEL=0")
    async with running(with_tls(own)) as server:
        with pytest.raises(trio.BrokenResourceError):
            async with connected(server, client):
                pytest.fail("it was accepted")
    context = open_tls(with_tls(own))
    assert context is not None
    assert context.minimum_version is ssl.TLSVersion.TLSv1_2


async def test_what_is_no_tls_harms_nobody(tmp_path: Path) -> None:
    """A client that speaks plain HTTP, one that trusts another certificate, one that says nothing and leaves."""
    own, other = SelfSigned(tmp_path), SelfSigned(tmp_path, name="other")
    async with running(with_tls(own)) as server:
        async with await server.connect() as plain:
            await plain.send_all(GET % b"/")
            assert b"200" not in await read_until(plain, b"never")
        with pytest.raises(trio.BrokenResourceError):
            async with connected(server, other.client()):
                pytest.fail("it was trusted")
        await (await server.connect()).aclose()
        async with connected(server, own.client()) as stream:
            await stream.send_all(GET % b"/")
            assert b"end" in await read_until(stream, b"end")


async def test_a_handshake_that_never_comes_gives_its_place_back(tmp_path: Path, mock_clock: MockClock) -> None:
    """With one place, the next client is served when the time for the silent one is over."""
    own = SelfSigned(tmp_path)
    one_place = msgspec.structs.replace(with_tls(own), connections_max=1)
    served: list[bytes] = []
    async with running(one_place) as server:
        silent = await server.connect()
        async with trio.open_nursery() as clients:

            async def ask() -> None:
                async with connected(server, own.client()) as stream:
                    await stream.send_all(GET % b"/")
                    served.append(await read_until(stream, b"end"))

            clients.start_soon(ask)
            await wait_all_tasks_blocked(0.01)
            assert not served
            await pass_time_until(mock_clock, lambda: bool(served), step_s=HANDSHAKE_TIMEOUT_S / 10)
        await silent.aclose()


async def test_a_running_request_finishes_while_the_server_drains(tmp_path: Path) -> None:
    """As without TLS; idle connections close."""
    own = SelfSigned(tmp_path)
    async with (
        running(with_tls(own)) as server,
        connected(server, own.client()) as busy,
        connected(server, own.client()) as idle,
    ):
        await busy.send_all(GET % b"/slow")
        await server.app.slow_started.wait()
        server.shutdown.set()
        assert await read_until(idle, b"never") == b""
        assert not server.ended.is_set()
        server.app.release.set()
        assert b"end" in await read_until(busy, b"end")
        await server.ended.wait()


async def test_a_client_that_stops_reading_cannot_hold_up_the_end(tmp_path: Path) -> None:
    """TCP_USER_TIMEOUT ends what TLS sends, too."""
    own = SelfSigned(tmp_path)
    settings = msgspec.structs.replace(with_tls(own), stalled_write_timeout_s=0.5, drain_timeout_s=0.1)
    async with running(settings) as server, connected(server, own.client()) as stream:
        await stream.send_all(GET % b"/flood")
        await server.app.slow_started.wait()
        await wait_all_tasks_blocked(0.2)
        server.shutdown.set()
        with trio.fail_after(PATIENCE_S):
            await server.ended.wait()


async def test_a_client_that_leaves_gives_its_place_back(tmp_path: Path) -> None:
    """With and without a word of farewell."""
    own = SelfSigned(tmp_path)
    async with running(msgspec.structs.replace(with_tls(own), connections_max=1)) as server:
        for https_compatible in (True, False):
            plain = await server.connect()
            stream = trio.SSLStream(plain, own.client(), server_hostname="127.0.0.1", https_compatible=https_compatible)
            await stream.send_all(GET % b"/")
            assert b"end" in await read_until(stream, b"end")
            await stream.aclose()


async def test_sighup_brings_a_new_certificate_and_keeps_the_old_one_if_that_is_broken(tmp_path: Path) -> None:
    """For connections that come later."""
    own = SelfSigned(tmp_path)
    async with running(with_tls(own)) as server:

        async def serial_now() -> int:
            trusting = ssl.create_default_context()
            trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
            async with connected(server, trusting) as stream:
                seen = stream.getpeercert(binary_form=True)
            return own.serial_of(seen)

        assert await serial_now() == own.serial
        renewed = SelfSigned(tmp_path)  # in the same files
        os.kill(os.getpid(), signal.SIGHUP)
        with trio.fail_after(PATIENCE_S):
            while await serial_now() != renewed.serial:
                await trio.lowlevel.checkpoint()
        renewed.certificate.write_text("no certificate")
        os.kill(os.getpid(), signal.SIGHUP)
        await wait_all_tasks_blocked(0.05)
        assert await serial_now() == renewed.serial


# --- wrong files ---


def broken(tmp_path: Path, kind: str) -> tuple[str, str, str]:
    """Two files of which one is wrong, and what the error must say."""
    own, other = SelfSigned(tmp_path), SelfSigned(tmp_path, name="other")
    certificate, key = str(own.certificate), str(own.key)
    match kind:
        case "no certificate":
            return str(tmp_path / "none.pem"), key, "server.tls_certificate_file: .* cannot be read: No such file"
        case "no key":
            return certificate, str(tmp_path / "none.key"), "server.tls_key_file: .* cannot be read: No such file"
        case "a folder":
            return str(tmp_path), key, "server.tls_certificate_file: .* cannot be read: Is a directory"
        case "garbage":
            own.certificate.write_text("garbage")
            return certificate, key, "must hold a PEM certificate and its PEM key"
        case "swapped":
            return key, certificate, "must hold a PEM certificate and its PEM key"
        case "another key":
            return certificate, str(other.key), "the key does not belong to server.tls_certificate_file"
        case _:
            locked = SelfSigned(tmp_path, name="locked", password=b"secret")
            return str(locked.certificate), str(locked.key), "the key is encrypted"


KINDS = ["no certificate", "no key", "a folder", "garbage", "swapped", "another key", "an encrypted key"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_wrong_file_is_one_clear_line(tmp_path: Path, kind: str) -> None:
    """Which names the setting, and never quotes what is in a file."""
    certificate, key, words = broken(tmp_path, kind)
    with pytest.raises(SettingError, match=words) as refused:
        open_tls(ServerSettings(tls_certificate_file=certificate, tls_key_file=key))
    assert "\n" not in refused.value.message
    assert "PRIVATE" not in refused.value.message


def test_a_wrong_file_ends_the_start_with_2_before_anything_is_written(tmp_path: Path) -> None:
    """In one line."""
    command = [sys.executable, "-m", "router", "serve", "--data-dir", str(tmp_path / "data"), "--port", "0"]
    files = {f"MEMORYROUTER_SERVER__TLS_{name}_FILE": str(tmp_path / name) for name in ("CERTIFICATE", "KEY")}
    ended = subprocess.run(
        command, env=os.environ | files, capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    (line,) = ended.stderr.splitlines()
    assert (ended.returncode, ended.stdout) == (2, "")
    assert line.startswith("error: server.tls_certificate_file: ")
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("name", ["CERTIFICATE", "KEY"])
def test_one_of_both_files_is_not_enough(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="must be set together"):
        load_settings(None, {f"MEMORYROUTER_SERVER__TLS_{name}_FILE": "x"}, directory=tmp_path)


def test_without_the_settings_there_is_no_tls() -> None:
    assert open_tls(ServerSettings()) is None
