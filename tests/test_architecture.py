"""The code keeps the rules of its own house: who imports whom, sizes, and habits that are traps with Trio.

Each rule is a function from one module to its offences; the last tests prove that every rule finds what it looks for.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

PROJECT = Path(__file__).parents[1]
LAYERS = ("models", "actors", "router")  # each may import those before it
FOLDERS = (*LAYERS, "tests", "bench")
MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 70

# Packages that a whole layer does without.
BANNED = {
    "models": {"trio", "quart", "quart_trio", "hypercorn", "httpx", "click", "apsw", "hnswlib"},
    "actors": {"quart", "quart_trio", "hypercorn", "httpx", "click"},
    "router": {"apsw", "hnswlib", "onnxruntime", "tokenizers", "onnx", "cryptography"},
}

# Packages that stand behind one seam: only these modules import them.
SEAMS = {
    "httpx": r"router/(provider_urls|embedding_endpoint|commands/\w+)\.py",
    "h11": r"router/(http1|provider_connections)\.py",
    "hypercorn": r"router/(server|http1)\.py",
    "quart": r"router/(app|quart_app|proxying|streaming|requests|request_ids|elsewhere)\.py|router/routes/.*",
    "quart_trio": r"router/quart_app\.py",
    "click": r"router/(cli\.py|commands/.*)",
    "rich": r"router/(cli\.py|commands/.*)",
    "opentelemetry": r"router/tracing\w*\.py",
    "hnswlib": r"actors/segments\.py",
    "apsw": r"actors/store/.*",
    "cryptography": r"actors/store/.*",
    "onnxruntime": r"models/(embedding\w*|model_files)\.py",
    "tokenizers": r"models/(embedding\w*|model_files)\.py",
    "onnx": r"models/(embedding\w*|model_files)\.py",
}

COMMAND_LINE = re.compile(r"router/(cli\.py|commands/.*)")

# Scopes of actors: the supervisor gives them all one deadline when it drains.
SHIELDS_ENDED_BY_THE_DRAIN = {"actors/entry.py"}

VAGUE_NAMES = re.compile(r"(^|_)(utils?|helpers?|managers?|misc|common)(_|$)")
UNFINISHED = re.compile(
    r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b|Not" + r"ImplementedError|\bx" + r"fail\b|mark\.sk" + r"ip"
)
# Fakes keep a cadence, the simulation's clock is mocked from outside, campaigns wait for processes and disks.
MAY_SLEEP = ("tests/fakes/", "tests/simulation/", "tests/campaigns/", "tests/patience.py")
CHANNEL_NAME = re.compile(r"(^|_)(send|receive|sender|receiver|channel)(_channel)?$")
QUART_LIFETIMES = {"add_background_task", "while_serving", "before_serving", "after_serving"}


class Module(msgspec.Struct, frozen=True):
    """One file: its path within the project, its text, its tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def folder(self) -> str:
        return self.path.partition("/")[0]


Rule = Callable[[Module], Iterator[str]]


def parse(path: str, text: str) -> Module:
    """A module from its text."""
    return Module(path=path, text=text, tree=ast.parse(text))


def all_modules() -> list[Module]:
    """Every Python file of the project."""
    files = sorted(file for folder in FOLDERS for file in (PROJECT / folder).rglob("*.py"))
    return [parse(file.relative_to(PROJECT).as_posix(), file.read_text(encoding="utf-8")) for file in files]


MODULES = all_modules()


# --- who imports whom ---


def imports(module: Module) -> Iterator[tuple[str, int]]:
    """Every imported module with its line, also those inside functions and `if TYPE_CHECKING`."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((name.name, node.lineno) for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield f"{'.' * node.level}{node.module or ''}", node.lineno


def imports_go_one_way(module: Module) -> Iterator[str]:
    """models <- actors <- router; tests and bench import all, and nothing imports them."""
    rank = {folder: number for number, folder in enumerate(LAYERS)}
    for name, line in imports(module):
        package = name.partition(".")[0]
        if name.startswith("."):
            yield f"{line}: relative import"
        elif module.folder not in rank:
            continue
        elif package in {"tests", "bench"} or rank.get(package, -1) > rank[module.folder]:
            yield f"{line}: {module.folder} imports {name}"


def layers_do_without_foreign_packages(module: Module) -> Iterator[str]:
    """A layer's banned packages."""
    for name, line in imports(module):
        if name.partition(".")[0] in BANNED.get(module.folder, set()):
            yield f"{line}: {module.folder} imports {name}"


def packages_stay_behind_their_seam(module: Module) -> Iterator[str]:
    """Each of these packages has one place, so that it can be exchanged there. Tests and benchmarks are free."""
    if module.folder not in LAYERS:
        return
    for name, line in imports(module):
        seam = SEAMS.get(name.partition(".")[0])
        if seam and not re.fullmatch(seam, module.path):
            yield f"{line}: imports {name}, which belongs to {seam}"


# --- sizes and names ---


def modules_are_short(module: Module) -> Iterator[str]:
    """At most 400 lines."""
    lines = module.text.count("\n")
    if lines > MODULE_LINES_MAX:
        yield f"{lines} lines"


def functions(module: Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function and method, nested ones too."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def functions_are_short(module: Module) -> Iterator[str]:
    """At most 70 lines, from `def` to the end."""
    for function in functions(module):
        lines = (function.end_lineno or function.lineno) - function.lineno + 1
        if lines > FUNCTION_LINES_MAX:
            yield f"{function.lineno}: {function.name} has {lines} lines"


def modules_say_what_they_own(module: Module) -> Iterator[str]:
    """A docstring first, then the future import that makes annotations cheap. Empty package marks are free."""
    if module.text.strip() and not ast.get_docstring(module.tree):
        yield "no docstring"
    has_code = any(not isinstance(node, ast.Expr) for node in module.tree.body)
    if has_code and "from __future__ import annotations" not in module.text:
        yield "no `from __future__ import annotations`"


def names_say_something(module: Module) -> Iterator[str]:
    """No utils, helpers, managers: neither modules nor classes."""
    if VAGUE_NAMES.search(Path(module.path).stem):
        yield "vague module name"
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ClassDef) and node.name.endswith(("Manager", "Helper", "Utils", "Util")):
            yield f"{node.lineno}: vague class name {node.name}"


def nothing_is_left_unfinished(module: Module) -> Iterator[str]:
    """No notes to self, no stubs, no skipped tests, no blanket suppressions, no paths of one machine."""
    for number, line in enumerate(module.text.splitlines(), 1):
        if UNFINISHED.search(line):
            yield f"{number}: {line.strip()}"
        if re.search(r"#\s*type:\s*ignore(?!\[)", line) or re.search(r"#\s*noqa(?!: [A-Z])", line):
            yield f"{number}: suppresses everything"
        if re.search(r"[\"' ](/ho" + r"me/|/ro" + r"ot/|/wo" + r"rk/)", line):
            yield f"{number}: a path of one machine"


# --- traps ---


def exceptions_are_caught_by_name(module: Module) -> Iterator[str]:
    """No bare `except`, and no end for BaseException, which holds Trio's cancellation: only clean up and re-raise."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.ExceptHandler):
            last = node.body[-1]
            reraises = isinstance(last, ast.Raise) and last.exc is None
            if node.type is None:
                yield f"{node.lineno}: bare except"
            elif "BaseException" in {_last_name(name) for name in ast.walk(node.type)} and not reraises:
                yield f"{node.lineno}: swallows BaseException"


def shields_have_deadlines(module: Module) -> Iterator[str]:
    """A shielded scope without a deadline cannot be ended by anybody. Tests of just that are free."""
    if module.folder == "tests" or module.path in SHIELDS_ENDED_BY_THE_DRAIN:
        return
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call) and _callee(node) == "CancelScope":
            keywords = {keyword.arg for keyword in node.keywords}
            if "shield" in keywords and not keywords & {"deadline", "relative_deadline"}:
                yield f"{node.lineno}: shield without a deadline"
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Attribute) and target.attr == "shield" for target in node.targets
        ):
            yield f"{node.lineno}: shield set without a deadline"


def channels_close_synchronously(module: Module) -> Iterator[str]:
    """`async with` on a memory channel has a checkpoint at its end, which can hide the real error (trio #1559)."""
    channels = set(_channel_names(module.tree))
    for node in ast.walk(module.tree):
        if isinstance(node, ast.AsyncWith):
            for item in node.items:
                name = _channel_of(item.context_expr)
                if name in channels or (name and CHANNEL_NAME.search(name)):
                    yield f"{node.lineno}: async with {name}"


def _channel_names(tree: ast.Module) -> Iterator[str]:
    """Names that `open_memory_channel` is unpacked into."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Assign):
            continue
        call = node.value
        while isinstance(call, ast.Call | ast.Subscript):
            call = call.func if isinstance(call, ast.Call) else call.value
        if _last_name(call) == "open_memory_channel":
            for target in ast.walk(node.targets[0]):
                yield from filter(None, [_last_name(target)])


def _channel_of(expression: ast.expr) -> str:
    """The name in `name`, `self.name` or `name.clone()`."""
    if isinstance(expression, ast.Call) and _callee(expression) == "clone":
        assert isinstance(expression.func, ast.Attribute)
        return _last_name(expression.func.value)
    return _last_name(expression)


def _last_name(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""


def _callee(call: ast.Call) -> str:
    return _last_name(call.func)


def no_test_sleeps(module: Module) -> Iterator[str]:
    """A test reaches a state instead of sleeping towards it; only a mocked clock may be slept on."""
    if module.folder == "tests" and not module.path.startswith(MAY_SLEEP):
        yield from _sleeps(module.tree, has_mock_clock=False)


def _sleeps(node: ast.AST, *, has_mock_clock: bool) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        mocked = has_mock_clock
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = {argument.arg for argument in (*child.args.args, *child.args.kwonlyargs)}
            mocked = mocked or bool(arguments & {"autojump_clock", "mock_clock"})
        if isinstance(child, ast.Call) and _callee(child) in {"sleep", "sleep_until"} and not mocked:
            yield f"{child.lineno}: sleeps on the real clock"
        yield from _sleeps(child, has_mock_clock=mocked)


def lifetimes_are_our_own(module: Module) -> Iterator[str]:
    """Never Quart's nursery, background tasks or serving hooks: they end in the wrong order."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and (
            node.attr in QUART_LIFETIMES or (node.attr == "nursery" and _last_name(node.value).endswith("app"))
        ):
            yield f"{node.lineno}: {node.attr}"


def stdout_belongs_to_the_command_line(module: Module) -> Iterator[str]:
    """Only the command line prints, since scripts read what it prints; a module run as a program of its own may too."""
    if module.folder not in LAYERS or COMMAND_LINE.fullmatch(module.path):
        return
    for statement in module.tree.body:
        if isinstance(statement, ast.If) and "__main__" in ast.unparse(statement.test):
            continue
        for node in ast.walk(statement):
            prints = isinstance(node, ast.Call) and _callee(node) in {"print", "echo"}
            if prints or (isinstance(node, ast.Attribute) and ast.unparse(node) == "sys.stdout"):
                assert isinstance(node, ast.expr)
                yield f"{node.lineno}: writes to stdout"


# What each rule finds: a path and a text that break it.
OFFENCES: dict[Rule, tuple[str, str]] = {
    imports_go_one_way: ("models/x.py", "def f():\n    from router import app"),
    layers_do_without_foreign_packages: ("models/x.py", "import trio.testing"),
    packages_stay_behind_their_seam: ("router/app.py", "from httpx import AsyncClient"),
    modules_are_short: ("models/x.py", "\n" * 401),
    functions_are_short: ("models/x.py", "def f():\n" + "    pass\n" * 70),
    modules_say_what_they_own: ("models/x.py", "import re"),
    names_say_something: ("models/text_utils.py", ""),
    nothing_is_left_unfinished: ("models/x.py", "x = 1  # type" + ": ignore"),
    exceptions_are_caught_by_name: ("models/x.py", "try:\n    f()\nexcept (OSError, BaseException):\n    pass"),
    shields_have_deadlines: ("actors/x.py", "with trio.CancelScope(shield=True):\n    pass"),
    channels_close_synchronously: (
        "actors/x.py",
        "async def f():\n    a, self.b = trio.open_memory_channel[int](1)\n    async with self.b.clone():\n        x()",
    ),
    no_test_sleeps: ("tests/x.py", "async def test_x(nursery):\n    await trio.sleep(1)"),
    lifetimes_are_our_own: ("router/x.py", "app.add_background_task(f)"),
    stdout_belongs_to_the_command_line: ("router/x.py", "print(1)"),
}


@pytest.mark.parametrize("rule", OFFENCES, ids=lambda rule: rule.__name__)
def test_the_code_keeps_the_rule(rule: Rule) -> None:
    offences = [f"{module.path}: {offence}" for module in MODULES for offence in rule(module)]

    assert not offences, "\n" + "\n".join(offences)


@pytest.mark.parametrize("rule", OFFENCES, ids=lambda rule: rule.__name__)
def test_the_rule_finds_what_breaks_it(rule: Rule) -> None:
    path, text = OFFENCES[rule]

    assert list(rule(parse(path, text)))


def test_the_rules_leave_good_code_alone() -> None:
    text = (
        '"""Owns nothing."""\n\nfrom __future__ import annotations\n\nimport trio\n\n\n'
        "async def test_x(autojump_clock):\n"
        "    send, receive = trio.open_memory_channel[int](1)\n"
        "    with send, receive:\n        await trio.sleep(1)\n"
        "    with trio.move_on_after(1, shield=True):\n        pass\n"
    )
    for path in ("tests/actors/test_x.py", "actors/x.py"):
        for rule in OFFENCES:
            assert list(rule(parse(path, text))) == []


def test_the_project_is_all_here() -> None:
    """An empty list of modules would keep every rule."""
    assert {"models/settings.py", "actors/supervisor.py", "router/service.py", "tests/test_architecture.py"} <= {
        module.path for module in MODULES
    }
