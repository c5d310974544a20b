"""Engines whose replicas are dead: usually their guards have ended them already, and then there is nothing left to do."""

from collections.abc import Set

from holdfast.domain.ports import Clock
from holdfast.host.engine_sweep import sweep, swept
from holdfast.store.engine_record import EngineRecordFile, recorded
from holdfast.store.folder import Folder


def sweep_after(folder: Folder, name: str) -> None:
    """Kill what this replica has left, without waiting: its next life waits, before it starts an engine of its own."""
    record = EngineRecordFile.of(folder.run(name)).read()
    if record is not None:
        sweep(record)


async def sweep_all(folder: Folder, living: Set[str], clock: Clock, within_s: float) -> None:
    """End what replicas of this site have left, those that live excepted; for each, wait so long until it is gone."""
    for name in recorded(folder.run("any").parent):
        file = EngineRecordFile.of(folder.run(name))
        record = file.read() if name not in living else None
        if record is not None and await swept(record, clock, within_s):
            file.remove()
