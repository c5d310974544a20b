"""Who imports whom: purity of the brain, cycles, dead modules, and packages that nobody declared."""

import ast
import itertools
import re
import sys
import tomllib
from collections.abc import Iterable

from house.source import PACKAGE, Source, imported_names

PURE = """abc base64 bisect collections contextlib dataclasses difflib enum fractions functools hashlib heapq hmac itertools
json math msgspec operator re statistics string struct textwrap tomllib types typing unicodedata zlib"""
PURE_MODULES = frozenset(PURE.split())
ENTRANCES = (
    f"{PACKAGE}.cli",
    f"{PACKAGE}.__main__",
    f"{PACKAGE}.pearl.triton_model",
    f"{PACKAGE}.engine.llamacpp_serve",
    f"{PACKAGE}.testing.engine_contract",
)
DISTRIBUTIONS = {
    "google": "protobuf",
    "grpc_health": "grpcio-health-checking",
    "grpc": "grpcio",
    "jinja2": "jinja2",
    "hdrh": "hdrhistogram",
    "xdist": "pytest-xdist",
    "importlinter": "import-linter",
}


def impurities(source: Source) -> list[str]:
    """domain and policy think; they read no clock, no file, no socket. Then their tests need neither fakes nor patience."""
    if source.room not in ("domain", "policy"):
        return []
    found = []
    for node in ast.walk(source.tree):
        for name in imported_names(node):
            own = name.startswith((f"{PACKAGE}.domain", f"{PACKAGE}.policy")) or name == PACKAGE
            if not own and name.split(".")[0] not in PURE_MODULES:
                found.append(source.at(node, f"import of {name} in the brain: hand the value in as an argument"))
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Name)
            and node.func.id in ("open", "print", "input")
        ):
            found.append(source.at(node, f"{node.func.id}() in the brain: return the value and let a hand do it"))
        if isinstance(node, ast.AsyncFunctionDef) and source.room == "policy":
            found.append(source.at(node, f"async def {node.name} in policy: decide now, let a layer wait"))
    return found


def edges(sources: Iterable[Source]) -> dict[str, set[str]]:
    """Module -> the own modules that it imports. `from a import b` is a.b where that is a module, else a."""
    sources = list(sources)
    known = {source.module for source in sources if source.in_src}
    return {source.module: _named(source, known) & known - {source.module} for source in sources}


def _named(source: Source, known: set[str]) -> set[str]:
    named: set[str] = set()
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            named |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            deeper = {f"{node.module}.{alias.name}" for alias in node.names}
            named |= {name if name in known else node.module or "" for name in deeper}
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            named.add(node.value.partition(":")[0])  # a door opened by its name is an import too
    return named


def cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of modules that import each other round and round (Tarjan's strongly connected components)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(module: str) -> None:
        index[module] = low[module] = len(index)
        stack.append(module)
        for other in sorted(graph.get(module, ())):
            if other not in index:
                visit(other)
                low[module] = min(low[module], low[other])
            elif other in stack:
                low[module] = min(low[module], index[other])
        if low[module] == index[module]:
            cut = stack.index(module)
            group, stack[cut:] = stack[cut:], []
            if len(group) > 1:
                groups.append(sorted(group))

    for module in sorted(graph):
        if module not in index:
            visit(module)
    return groups


def dead(graph: dict[str, set[str]], packages: set[str]) -> list[str]:
    """Modules that nothing in the house imports and that are no entrance; sim may be kept alive by tests, it is their stage.

    Package heads live as long as their folder does.
    """
    own = {module for module in graph if module.startswith(f"{PACKAGE}.")}
    used = {name for module in own for name in graph[module]}
    used |= {name for targets in graph.values() for name in targets if name.startswith(f"{PACKAGE}.sim.")}
    return sorted(own - used - packages - {module for module in own if module.startswith(ENTRANCES)})


def undeclared(source: Source, pyproject: str, local: set[str]) -> list[str]:
    """Third-party imports that pyproject.toml does not name: they work here and break on a fresh machine.

    `local` are the names that files beside each other (tests, benches) import one another by.
    """
    project = tomllib.loads(pyproject)["project"]
    wanted = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    declared = {re.split(r"[\[<>=~! ;]", line, maxsplit=1)[0].lower().replace("-", "_") for line in wanted}
    known = {*sys.stdlib_module_names, *local, PACKAGE}
    found = set()
    for node in ast.walk(source.tree):
        for top in {name.split(".")[0] for name in imported_names(node)} - known:
            package = DISTRIBUTIONS.get(top, top).lower().replace("-", "_")
            if top and package not in declared:
                found.add(
                    source.at(node, f"{top} is not among the dependencies in pyproject.toml: declare it or do without")
                )
    return sorted(found)
