"""Reads the tree once: every rule gets parsed files, so that a rule is a plain function from a file to sentences."""

import ast
import io
import re
import subprocess
import tokenize
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "holdfast"
IGNORED = re.compile(r"\.venv.*|\.git|\..*_cache|\.hypothesis|__pycache__|.*\.egg-info|\.holdfast|results|runs")


@dataclass(frozen=True)
class Source:
    """One Python file. `path` is relative to the root, with forward slashes."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        """Each node's parent, which ast itself does not tell."""
        return {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    @cached_property
    def comments(self) -> list[tuple[int, str]]:
        """Line number and text of every comment."""
        tokens = tokenize.generate_tokens(io.StringIO(self.text).readline)
        return [(token.start[0], token.string) for token in tokens if token.type == tokenize.COMMENT]

    @property
    def in_src(self) -> bool:
        return self.path.startswith("src/")

    @property
    def module(self) -> str:
        """Dotted name of a file under src; the path without its ending elsewhere."""
        dotted = self.path.removeprefix("src/").removesuffix(".py").replace("/", ".")
        return dotted.removesuffix(".__init__")

    @property
    def room(self) -> str:
        """The folder under the package (domain, policy, gateway, ...), or empty for files that stand beside the rooms."""
        parts = self.path.split("/")
        return parts[2] if self.in_src and len(parts) > 3 else ""

    def at(self, node: ast.AST | int, sentence: str) -> str:
        """A finding: where, and what to do about it."""
        line = node if isinstance(node, int) else getattr(node, "lineno", 0)
        return f"{self.path}:{line}: {sentence}"

    def ancestors(self, node: ast.AST) -> list[ast.AST]:
        """From the node's parent up to the module."""
        chain = []
        while node in self.parents:
            node = self.parents[node]
            chain.append(node)
        return chain


def repo_files() -> list[str]:
    """Tracked files and untracked ones that git does not ignore; in an unpacked archive, everything that is no cache."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    asked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if asked.returncode == 0:
        return sorted(path for path in set(asked.stdout.splitlines()) if (ROOT / path).is_file())
    found = [path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file()]
    return sorted(str(path) for path in found if not any(IGNORED.match(part) for part in path.parts[:-1]))


def python_sources(paths: list[str]) -> list[Source]:
    """Every Python file among them, parsed on first use."""
    return [Source(path, (ROOT / path).read_text("utf-8")) for path in paths if path.endswith(".py")]


def dotted(node: ast.AST) -> str:
    """`a.b.c` for a chain of attributes on a name; empty for anything else."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return ""
    return ".".join([node.id, *reversed(parts)])


def imported_names(node: ast.AST) -> list[str]:
    """The modules that an import statement names, as written; empty for other nodes and for `from . import`."""
    if isinstance(node, ast.ImportFrom):
        return [node.module or ""]
    return [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
