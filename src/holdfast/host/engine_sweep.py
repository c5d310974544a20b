"""Sweeping: ending what an earlier life of a replica has left of its engine.

The guard of host/sessions.py does this within a moment of the replica's death. The sweep is for the case that the guard was
killed too. A new life sweeps before it starts an engine of its own: the old one would hold its port and the GPU's memory.
"""

from holdfast.domain.engine_record import EngineRecord
from holdfast.domain.ports import Clock
from holdfast.host import sessions
from holdfast.host.engine_process import EngineNotStarted

GONE_S = 30.0  # a killed process gives the memory of a GPU back within seconds


def sweep(record: EngineRecord) -> list[int]:
    """Kill what is left of it, without waiting; the pids that were there. Strangers with the same numbers are spared. Where
    nothing is left, its shared memory is freed."""
    left = _left(record)
    sessions.kill(left, spare=True)
    if not left:
        sessions.free_shared(_noted(record))
    return [one.pid for one in left]


async def swept(record: EngineRecord, clock: Clock, within_s: float = GONE_S) -> bool:
    """Kill what is left of it and wait until it is gone. False: something is still there after so many seconds."""
    return not await _staying(record, clock, within_s)


async def _staying(record: EngineRecord, clock: Clock, within_s: float) -> list[int]:
    """The pids that are still there after so many seconds of killing. Where there are none, its shared memory is freed."""
    began = clock.now()
    shared = _noted(record)
    while left := _left(record):
        took_s = clock.now() - began
        shared |= sessions.shared_by(left)
        sessions.kill(left, spare=took_s < sessions.TIDY_S)
        if took_s > within_s:
            return [one.pid for one in left]
        await clock.sleep(sessions.PAUSE_S)
    sessions.free_shared(shared)
    return []


async def make_way(record: EngineRecord | None, clock: Clock, within_s: float = GONE_S) -> None:
    """What a new life does before it starts an engine: it ends the former life's, if that has left anything.

    Raises:
        EngineNotStarted: something is left that can't be ended, and may hold the memory of the GPU.
    """
    left = await _staying(record, clock, within_s) if record is not None else []
    if record is not None and left:
        who = f"{record.kind}, pid {', '.join(map(str, left))}"
        why = f"what is left of this replica's former engine does not end ({who}): look at the GPU's driver"
        raise EngineNotStarted(None, why)


def _noted(record: EngineRecord) -> set[sessions.SharedFile]:
    return {sessions.SharedFile(*one) for one in record.shared} if record.machine == sessions.machine() else set()


def _left(record: EngineRecord) -> list[sessions.Seen]:
    if record.machine != sessions.machine():
        return []
    known = dict(record.members) | {record.pid: record.start_ticks}
    found = sessions.members(record.pid, record.token)
    in_session = [one for one in found if record.pid and one.session == record.pid]
    if any(known.get(one.pid) == one.start_ticks or sessions.carries(one.pid, record.token) for one in in_session):
        return found
    # No witness that the session is the one meant: only those that are known one by one, and what the token leads to.
    ones = [
        one for pid, ticks in known.items() if (one := sessions.seen(pid)) and one.alive and one.start_ticks == ticks
    ]
    return list({one.pid: one for one in (*ones, *sessions.members(0, record.token))}.values())
