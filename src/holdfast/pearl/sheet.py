"""One forward pass, written down: which token stands in which row, where its latent goes, and who attends to what."""

from dataclasses import dataclass, field
from typing import Protocol

ROW_STEP = 4  # rows are padded to a multiple: torch.mm's leftover rows take another kernel and differ in the last bit
_WIDE_ROWS, _WIDE_STEP = 32, 32


def padded(rows: int) -> int:
    """Rows with padding. Few distinct numbers, since a packed product prepares each number of rows once (about 1 ms)."""
    step = ROW_STEP if rows <= _WIDE_ROWS else _WIDE_STEP
    return -(-rows // step) * step


class Cells(Protocol):
    """Slots that keep what answers need of their past: pearl's latents, or transformers' keys and values."""

    @property
    def spare_place(self) -> int:
        """Where padding rows write."""
        ...

    @property
    def near_places(self) -> int:
        """How many places one attention product should read at most."""
        ...

    def place(self, slot: int, position: int) -> int: ...

    def length_for(self, tokens: int) -> int:
        """How far attention reads for an answer of so many tokens."""
        ...

    def copy(self, source: int, target: int, tokens: int) -> None: ...

    def clear(self, slot: int) -> None: ...


@dataclass(slots=True)
class Sheet:
    """Rows in order; `finish` turns the lists into tensors."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    picks: list[int] = field(default_factory=list)  # rows whose logits are wanted
    # First row, last row, slot, slots: as many rows for each of these slots attend to them.
    parts: list[tuple[int, int, int, int]] = field(default_factory=list)
    _last: tuple[int, int, int, int] = (-1, -1, -1, -1)  # what the next prompt must be to join the last part

    def spare(self, cache: Cells) -> None:
        """A row that stands for nobody."""
        self.ids.append(0)
        self.positions.append(0)
        self.places.append(cache.spare_place)

    def one(self, cache: Cells, slot: int, token: int, position: int) -> None:
        """The next token of the answer in `slot`; its logits are wanted."""
        self.picks.append(len(self.ids))
        self.ids.append(token)
        self.positions.append(position)
        self.places.append(cache.place(slot, position))

    def many(self, cache: Cells, slot: int, tokens: list[int], position: int) -> None:
        """Tokens of a prompt, the first of them at `position`. Prompts in neighbouring slots that read as many tokens up to
        as great a length share one product."""
        first, rows = len(self.ids), len(tokens)
        self.ids.extend(tokens)
        self.positions.extend(range(position, position + len(tokens)))
        place = cache.place(slot, position)
        self.places.extend(range(place, place + len(tokens)))
        length = cache.length_for(position + rows)
        if self.parts and self._last == (first, slot, rows, length):
            before = self.parts.pop()
            self.parts.append((before[0], first + rows, before[2], before[3] + 1))
        else:
            self.parts.append((first, first + rows, slot, 1))
        self._last = (first + rows, slot + 1, rows, length)
