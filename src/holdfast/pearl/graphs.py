"""Decode steps recorded once for each layout and replayed as CUDA graphs: one launch instead of hundreds.

Only for steps whose work has fixed shapes: one row an answer, and every expert for every token. Not yet run on a GPU.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_KEPT_MAX = 64
_WARM_UPS = 3  # before a capture, so that libraries have allocated what they need

Layout = tuple[tuple[int, int, int, int, int], ...]


@dataclass(slots=True)
class _Recorded:
    graph: torch.cuda.CUDAGraph
    numbers: Tensor
    logits: Tensor


class Graphs:
    """Recorded steps by layout; the oldest is dropped when there are too many."""

    def __init__(self) -> None:
        self._recorded: dict[Layout, _Recorded] = {}

    def run(self, layout: Layout, numbers: Tensor, compute: Callable[[Tensor], Tensor]) -> Tensor:
        """`compute(numbers)`, recorded at its first call. The result is overwritten by the next call of the same layout."""
        found = self._recorded.get(layout)
        if found is None:
            if len(self._recorded) >= _KEPT_MAX:
                del self._recorded[next(iter(self._recorded))]
            found = self._recorded[layout] = _record(numbers, compute)
        found.numbers.copy_(numbers)
        found.graph.replay()
        return found.logits


def _record(numbers: Tensor, compute: Callable[[Tensor], Tensor]) -> _Recorded:
    kept = numbers.clone()
    for _ in range(_WARM_UPS):
        compute(kept)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = compute(kept)
    return _Recorded(graph, kept, logits)
