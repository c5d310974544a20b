"""The record of one replica's engine: a small file beside the replica's run file, which the replica's next life and the
supervisor read when this life has ended."""

from pathlib import Path

from holdfast.domain.engine_record import EngineRecord
from holdfast.store import snapshot

SUFFIX = ".engine"  # run/replica-0.json, run/replica-0.engine


class EngineRecordFile:
    """`of` finds it by the run file's path, which is what a replica process knows."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @staticmethod
    def of(run_file: Path) -> "EngineRecordFile":
        return EngineRecordFile(run_file.with_suffix(SUFFIX))

    def write(self, record: EngineRecord) -> None:
        """Raises OSError."""
        snapshot.put(self._path, record)

    def read(self) -> EngineRecord | None:
        return snapshot.take(self._path, EngineRecord)

    def remove(self) -> None:
        """Raises OSError."""
        snapshot.remove(self._path)


def recorded(folder: Path) -> list[str]:
    """The names of those that have a record in this folder of run files, in order."""
    return sorted({path.stem for place in (folder, snapshot.spares_of(folder)) for path in place.glob(f"*{SUFFIX}")})
