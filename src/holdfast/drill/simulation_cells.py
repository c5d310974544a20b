"""Places for one on a simulated machine, as store/quarantine.py keeps them with file locks on a real one."""

from dataclasses import dataclass, field


@dataclass
class SimCells:
    """Places for one on the whole simulated machine: who holds one, by worker and answer."""

    held: dict[str, tuple[str, str]] = field(default_factory=dict)

    def of(self, worker: str) -> "WorkerCells":
        return WorkerCells(self, worker)

    def die(self, worker: str) -> None:
        """The kernel frees what a dead worker held."""
        self.held = {name: one for name, one in self.held.items() if one[0] != worker}


@dataclass
class WorkerCells:
    """One worker's access to them."""

    cells: SimCells
    worker: str

    def enter(self, name: str, who: str) -> bool:
        return self.cells.held.setdefault(name, (self.worker, who)) == (self.worker, who)

    def leave(self, name: str) -> None:
        if self.cells.held.get(name, ("", ""))[0] == self.worker:
            del self.cells.held[name]

    def inmate(self, name: str) -> str:
        return self.cells.held.get(name, ("", ""))[1]
