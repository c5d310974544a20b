"""Bugs to be planted in parrot.py, each with the story that must fail, and words of what it then says.

A bug is its adapter's source with some text in the place of other text, so that each shows how little it takes.
"""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import parrot

SOURCE = Path(parrot.__file__).read_text("utf-8")
HUNG = "it hung"
BROKEN = "a_broken_answer_is_lost_and_can_be_continued-"
GOES_ON = "an_answer_goes_on_after_every_token-"
DIALS = "reader, writer = await self._dial(EngineRefused)\n"
CLOSES = "            writer.close()\n\n    def _room"
OPEN = "self._closed = False\n"
ENDS = "yield Chunk([], FINISHES[said.end])"


@dataclass
class Bug:
    """`changes` are pairs: what stands in the source once, and what takes its place. `says` is a pattern."""

    name: str
    story: str
    says: str
    changes: tuple[tuple[str, str], ...]

    def planted(self, folder: Path) -> Callable[[int], parrot.Parrot]:
        """The adapter with it."""
        text = SOURCE
        for right, wrong in self.changes:
            assert text.count(right) == 1, f"the bug has no place, or several: {right!r}"
            text = text.replace(right, wrong)
        path = folder / "parrot_with_a_bug.py"
        path.write_text(text, "utf-8")
        spec = importlib.util.spec_from_file_location("parrot_with_a_bug", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        adapter: Callable[[int], parrot.Parrot] = module.Parrot
        return adapter


def bug(name: str, story: str, says: str, *changes: tuple[str, str]) -> Bug:
    return Bug(name, story, says, changes)
