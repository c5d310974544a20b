"""What may not be written here, each with what to write instead. A rule without its replacement is only a complaint."""

import ast
import re

from house.source import PACKAGE, Source, dotted, imported_names

CLOCK_ROOMS = ("src/holdfast/host/clock.py", "src/holdfast/sim/")
CLOCK = "take the Clock port (domain/ports.py); sim has a virtual one"

READS_THE_CLOCK = {
    "time": ("time", "time_ns", "monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "sleep"),
    "datetime": ("now", "utcnow", "today"),
    "asyncio": ("sleep",),
}
LOOPS = ("loop", "_loop", "asyncio.get_running_loop()", "asyncio.get_event_loop()")

CALLS = {
    "os.system": "asyncio.create_subprocess_exec with an argument list",
    "os.popen": "asyncio.create_subprocess_exec with an argument list",
    "eval": "a parser for what you mean",
    "exec": "a function",
    "breakpoint": "a test",
}
MOCKS = ("Mock", "MagicMock", "AsyncMock", "PropertyMock", "patch", "mock", "create_autospec")
FILE_NAMES = ("util", "utils", "helper", "helpers", "common", "manager", "base", "misc")
MARKERS = re.compile(r"\b(" + "|".join(["TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK"]) + r")\b")
WAIVERS = re.compile(r"#\s*(type:\s*ignore|no" + r"qa|pragma:\s*no\s*cover|mypy:|ruff:)")


def clock_readers(source: Source) -> list[str]:
    """Time comes in as an argument or through the Clock port, so that a story can be told in virtual time."""
    if not source.in_src or source.path.startswith(CLOCK_ROOMS):
        return []
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute):
            owner = dotted(node.value)
            if node.attr in READS_THE_CLOCK.get(owner.split(".")[-1], ()):
                found.append(source.at(node, f"{owner}.{node.attr}: {CLOCK}"))
            if node.attr == "time" and ast.unparse(node.value).removeprefix("self.") in LOOPS:
                found.append(source.at(node, f"{owner}.time: {CLOCK}"))
        if isinstance(node, ast.ImportFrom) and node.module in READS_THE_CLOCK:
            taken = [alias.name for alias in node.names if alias.name in READS_THE_CLOCK[node.module]]
            found += [source.at(node, f"{node.module}.{name}: {CLOCK}") for name in taken]
    return found


def sleeping_tests(source: Source) -> list[str]:
    """A test that sleeps is slow and still flaky. `asyncio.sleep(0)` lets other tasks run and is no wait."""
    if not source.path.startswith("tests/"):
        return []
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and dotted(node.func) in ("time.sleep", "asyncio.sleep"):
            arguments = [ast.unparse(argument) for argument in node.args]
            if arguments != ["0"]:
                found.append(
                    source.at(node, f"{ast.unparse(node)}: wait for an event, or tell the story in virtual time")
                )
    return found


def unseeded(source: Source) -> list[str]:
    """Chance is an argument: a seeded generator or a seed, so that a failure can be replayed."""
    found = []
    module_taken = any(
        "random" in imported_names(node) for node in ast.walk(source.tree) if isinstance(node, ast.Import)
    )
    for node in ast.walk(source.tree):
        if (
            module_taken
            and isinstance(node, ast.Attribute)
            and dotted(node.value) == "random"
            and node.attr != "Random"
        ):
            found.append(source.at(node, f"random.{node.attr}: take a seeded generator as an argument"))
        if isinstance(node, ast.Call) and dotted(node.func) in ("random.Random", "Random") and not node.args:
            found.append(source.at(node, "random.Random(): give it the seed"))
        if isinstance(node, ast.ImportFrom) and node.module == "random" and [a.name for a in node.names] != ["Random"]:
            found.append(source.at(node, "from random import ...: only Random, and give it the seed"))
    return found


def mocks(source: Source) -> list[str]:
    """Mocks are the price of an impure middle; fakes of the ports live in sim/ and are shipped."""
    found = []
    for node in ast.walk(source.tree):
        if any(name.split(".")[0] in ("unittest", "mock", "pytest_mock") for name in imported_names(node)):
            found.append(source.at(node, "a mock library: use the fakes of sim/"))
        name = dotted(node.func).split(".") if isinstance(node, ast.Call) else []
        if name and (name[-1] in MOCKS or (name[0] == "monkeypatch" and name[-1] in ("setattr", "delattr"))):
            found.append(source.at(node, f"{'.'.join(name)}: hand a fake from sim/ in at the port"))
    return found


def wide_catches(source: Source) -> list[str]:
    """Whoever catches everything also catches the bug."""
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ExceptHandler):
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            if any(kind is None or dotted(kind) in ("Exception", "BaseException") for kind in caught):
                found.append(
                    source.at(node, "a catch of everything: name the exceptions that this line knows how to survive")
                )
    return found


def globals_and_calls(source: Source) -> list[str]:
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Global):
            found.append(source.at(node, f"global {', '.join(node.names)}: wire it in app.py and hand it in"))
        if isinstance(node, ast.Call) and dotted(node.func) in CALLS:
            found.append(source.at(node, f"{dotted(node.func)}(): use {CALLS[dotted(node.func)]}"))
        if isinstance(node, ast.keyword) and node.arg == "shell" and ast.unparse(node.value) == "True":
            found.append(source.at(node.value, "shell=True: give an argument list"))
    return found


def remarks(source: Source) -> list[str]:
    """Waivers in comments and notes to self."""
    found = []
    for line, comment in source.comments:
        if WAIVERS.search(comment):
            found.append(
                source.at(
                    line, f"{comment.strip()}: mend the cause; a library without types gets an override in pyproject"
                )
            )
        if MARKERS.search(comment):
            found.append(source.at(line, f"{comment.strip()}: do it, or write a decision that says why not"))
    return found


def hidden_imports(source: Source) -> list[str]:
    """An own import inside a function hides a cycle or a floor that is wrong."""
    found = []
    for node in ast.walk(source.tree):
        own = any(name.split(".")[0] == PACKAGE for name in imported_names(node)) or getattr(node, "level", 0) > 0
        if own and any(isinstance(up, ast.FunctionDef | ast.AsyncFunctionDef) for up in source.ancestors(node)):
            found.append(
                source.at(node, "an own import inside a function: import at the top, or move it to the floor above")
            )
    return found


def file_name(path: str) -> list[str]:
    """The noun that the file is about, never a drawer for everything."""
    if path.endswith(".py") and path.rsplit("/", 1)[-1].removesuffix(".py") in FILE_NAMES:
        return [f"{path}:1: name it after the noun that it is about"]
    return []
