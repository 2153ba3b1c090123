"""`memoryrouter chat`: one question, or a conversation on a terminal, with any model that a server knows.

Owns what is shown of a reply: its words on stdout as they come, and on stderr what memory had to do with it. Ctrl-C
ends a reply, Ctrl-D the conversation. The conversation is kept in this process only; no history is written to a file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from router.commands.connecting import KEY, URL, open_client, require_key, require_server
from router.commands.options import DATA_DIR, JSON
from router.commands.terminal import complain, has_colour, is_terminal, note, print_json, styled

if TYPE_CHECKING:
    import httpx

    from router.commands.chat_replies import Reply

MODEL = "local/recall"
"""Answers from memory alone, so that a server without any provider's key can be talked to."""

REPLY_TIMEOUT_S = 600.0
_HELP = "/new begins a new conversation, /exit or Ctrl-D ends this one, Ctrl-C ends a reply."


@click.command(short_help="Talk to a model with memory.")
@click.argument("text", required=False)
@click.option("--model", default=MODEL, show_default=True, help="As GET /v1/models lists them.")
@click.option("--session", help="Remember in this session, and recall from it.")
@click.option(
    "--memory",
    type=click.Choice(["on", "read", "write", "off"]),
    default="on",
    show_default=True,
    help="read: recall only. write: store only. off: neither.",
)
@click.option("--system", help="A system message before everything else.")
@KEY
@URL
@DATA_DIR
@JSON
def chat(
    text: str | None,
    model: str,
    session: str | None,
    memory: str,
    system: str | None,
    key: str | None,
    url: str | None,
    data_dir: Path,
    *,
    as_json: bool,
) -> None:
    """Say TEXT to a model with memory, or talk to it: without TEXT, on a terminal, a conversation begins.

    TEXT may also come from standard input. Where it is piped, stdout has the reply and nothing else; what memory did
    goes to stderr.
    """
    key = require_key(key)
    talks = text is None and is_terminal(sys.stdin)
    if text is None and not talks:
        text = sys.stdin.read()
    if text is not None and not text.strip():
        raise click.UsageError("There is nothing to say: give TEXT, or text on standard input.")
    url = require_server(url, data_dir)
    headers = {"x-memory-mode": memory}
    if session:
        headers["x-session-id"] = session
    with open_client(url, key, timeout_s=REPLY_TIMEOUT_S) as client:
        client.headers.update(_sendable(headers))
        conversation = Conversation(client, url, model, system, as_json=as_json)
        if text is not None:
            conversation.say(text)
        else:
            _talk(conversation)


def _sendable(headers: dict[str, str]) -> dict[str, str]:
    for name, value in headers.items():
        if not value.isascii() or not value.isprintable():
            raise click.BadParameter(f"{name} takes printable ASCII characters only.")
    return headers


class Conversation:
    """What was said so far, and how the next thing is said."""

    def __init__(self, client: httpx.Client, url: str, model: str, system: str | None, *, as_json: bool) -> None:
        self._client = client
        self._url = url
        self._model = model
        self._first = [{"role": "system", "content": system}] if system else []
        self._messages: list[dict[str, Any]] = list(self._first)
        self._as_json = as_json

    def begin_anew(self) -> None:
        """Forget what was said here; the vault remembers."""
        self._messages = list(self._first)

    def say(self, text: str) -> None:
        """Say something and show the reply.

        Raises:
            KeyboardInterrupt: Ctrl-C ended the reply; what came of it counts as said.
            MemoryRouterError: there is no reply, or it broke off. What was said is taken back.
        """
        from router.commands.chat_replies import open_reply

        messages = [*self._messages, {"role": "user", "content": text}]
        with open_reply(self._client, self._url, self._model, messages) as reply:
            try:
                self._show(reply)
            except KeyboardInterrupt:
                self._keep(messages, reply)
                raise
        self._keep(messages, reply)
        if self._as_json:
            print_json(reply.summary())
        else:
            note(reply.memory_line())

    def _show(self, reply: Reply) -> None:
        """Let the words out as they come; a terminal gets no control characters of theirs."""
        shown = is_terminal(sys.stdout)
        ends_line = True
        try:
            for words in reply.words():
                if not self._as_json:
                    sys.stdout.write(_harmless(words) if shown else words)
                    sys.stdout.flush()
                    ends_line = words.endswith("\n")
        finally:
            if not ends_line:
                sys.stdout.write("\n")
                sys.stdout.flush()

    def _keep(self, messages: list[dict[str, Any]], reply: Reply) -> None:
        if reply.content:
            self._messages = [*messages, {"role": "assistant", "content": reply.content}]


def _harmless(words: str) -> str:
    return "".join(character if character.isprintable() or character in "\n\t" else "?" for character in words)


def _talk(conversation: Conversation) -> None:
    """Read and answer, until the end of the input."""
    from models.errors import MemoryRouterError

    note(_HELP)
    for text in _lines():
        match text.strip():
            case "":
                continue
            case "/exit" | "/quit":
                return
            case "/new":
                conversation.begin_anew()
                note("a new conversation")
            case "/help":
                note(_HELP)
            case said:
                try:
                    conversation.say(said)
                except KeyboardInterrupt:
                    note("the reply was ended")
                except MemoryRouterError as error:
                    complain(f"{error.message} {error.hint}".strip())


def _lines() -> Iterator[str]:
    """What is typed, line by line; Ctrl-C drops a line."""
    try:
        import readline  # lines can be edited, and earlier ones called back

        readline.set_auto_history(True)
    except ImportError:  # not on every system
        pass
    while True:
        try:
            if not is_terminal(sys.stdout):
                click.echo("> ", err=True, nl=False)
                yield input()
            else:
                yield input(_prompt())
        except KeyboardInterrupt:
            click.echo("", err=True)
        except EOFError:
            click.echo("", err=True)
            return


def _prompt() -> str:
    """The prompt; what moves no cursor stands between marks, so that long lines wrap in the right place."""
    if not has_colour(sys.stdout):
        return "> "
    start, _, end = styled("> ", "prompt", sys.stdout).partition("> ")
    return f"\x01{start}\x02> \x01{end}\x02"
