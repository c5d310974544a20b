"""What V3.2 and V4 say to their models in words: how to call tools, how hard to think.

These folders ship no template but a program, encoding/encoding_dsv*.py. It is never run. Its constants are read, since they are
the words that this very model was taught; the rest of the format is in v32.py and v4.py.
"""

import ast
from pathlib import Path
from typing import Any

PATTERN = "encoding_dsv*.py"


def encoder_of(folder: Path) -> Path | None:
    """The folder's encoder, if it ships one."""
    found = sorted((folder / "encoding").glob(PATTERN))
    return found[-1] if found else None


class Wording:
    """The literal constants of an encoder, by name."""

    def __init__(self, path: Path) -> None:
        """Read it.

        Raises:
            ValueError: it is not Python.
            OSError: it can't be read.
        """
        self._path = path
        self._constants: dict[str, Any] = {}
        try:
            tree = ast.parse(path.read_text("utf-8"))
        except SyntaxError as error:
            raise ValueError(f"{path} is not Python: {error}") from error
        for node in tree.body:
            if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                for target in targets:
                    if isinstance(target, ast.Name):
                        self._keep(target.id, node.value)

    def text(self, name: str) -> str:
        """A constant that must be there.

        Raises:
            ValueError: it is not, or is no text.
        """
        found = self._constants.get(name)
        if not isinstance(found, str):
            raise ValueError(f"{self._path} has no text {name}: put the encoder of the model's own release there")
        return found

    def get(self, name: str, otherwise: Any) -> Any:
        """A constant that may be missing."""
        return self._constants.get(name, otherwise)

    def _keep(self, name: str, value: ast.expr) -> None:
        try:
            self._constants[name] = ast.literal_eval(value)
        except (ValueError, TypeError):
            return  # computed, not written down
