"""hermes-memoryrouter as Hermes Agent runs it: installed by its own command, then driven turn by turn."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from scenes import KEY, QUESTION, URL, WRONG_KEY, play

HOME = Path(os.environ["HERMES_HOME"])
CAR = "I drive an old blue Saab."


def provider(*, home: Path = HOME, session: str = "s-1", **context: Any) -> Any:
    """The provider from the directory that Hermes looks into, registered as Hermes does it."""
    subprocess.run([Path(sys.executable).with_name("hermes-memoryrouter"), "install"], check=True, capture_output=True)
    folder = HOME / "plugins" / "memoryrouter"
    spec = importlib.util.spec_from_file_location(
        "memoryrouter_plugin", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["memoryrouter_plugin"] = module
    spec.loader.exec_module(module)
    found: list[Any] = []
    module.register(type("Context", (), {"register_memory_provider": staticmethod(found.append)}))
    (made,) = found
    made.initialize(session, hermes_home=str(home), **context)
    return made


def recall() -> None:
    hermes = provider()
    assert hermes.is_available()
    hermes.queue_prefetch(QUESTION)
    text = hermes.prefetch(QUESTION)
    assert text.startswith("<memoryrouter-context>"), text
    assert "Rex" in text
    assert hermes.recall_status().count >= 1
    assert hermes.prefetch("ok") == ""
    hermes.shutdown()


def capture() -> None:
    hermes = provider()
    recalled = hermes.prefetch(QUESTION)
    hermes.sync_turn(f"{recalled}\n\n{CAR}", "A fine car.", session_id="s-1")
    hermes.on_session_end([])
    later = provider(session="s-2")
    assert "Saab" in later.prefetch("Which car do I drive?")
    found = json.loads(later.handle_tool_call("memoryrouter_search", {"query": "the old blue Saab"}))
    assert found["count"] >= 1
    assert "Saab" in found["context"]


def sessions() -> None:
    os.environ["MEMORYROUTER_VAULT"] = "session"
    os.environ["MEMORYROUTER_DENSITY"] = "high"
    try:
        hermes = provider(session="s-3")
        hermes.sync_turn("My boat is called Nemo.", "A fine name.", session_id="s-3")
        hermes.on_session_end([])
        assert "Nemo" in hermes.prefetch("What is my boat called?", session_id="s-3")
        assert hermes.prefetch("Where is my boat Nemo?", session_id="s-4") == ""
    finally:
        del os.environ["MEMORYROUTER_VAULT"], os.environ["MEMORYROUTER_DENSITY"]


def file_settings() -> None:
    """Its settings in files instead of the environment, as its documentation has it."""
    home = HOME / "other"
    home.mkdir()
    (home / "memoryrouter.json").write_text(json.dumps({"base_url": f"{URL}/", "recall_limit": 3}))
    (home / "memoryrouter.key").write_text(KEY)
    (home / "memoryrouter.key").chmod(0o600)
    kept = {name: os.environ.pop(name) for name in ("MEMORYROUTER_API_KEY", "MEMORYROUTER_BASE_URL")}
    try:
        assert "Rex" in provider(home=home).prefetch(QUESTION)
    finally:
        os.environ.update(kept)


def refused() -> None:
    """A wrong key costs the turn nothing."""
    os.environ["MEMORYROUTER_API_KEY"] = WRONG_KEY
    try:
        hermes = provider()
        assert hermes.prefetch(QUESTION) == ""
        hermes.sync_turn("This is not stored.", "No.")
        hermes.on_session_end([])
    finally:
        os.environ["MEMORYROUTER_API_KEY"] = KEY


if __name__ == "__main__":
    play(recall, capture, sessions, file_settings, refused)
