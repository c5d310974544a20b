"""The processes of a replica's foreign engine, as a drill hurts them one by one: its first process, which holds the door, and the
one below it that computes.

They are found by the record that the replica keeps of its engine, and only what that record proves to be ours is touched.
"""

import contextlib
import os
import signal
from enum import StrEnum
from pathlib import Path

from holdfast.host import sessions
from holdfast.policy.engine_end import VITAL
from holdfast.policy.havoc import Blow
from holdfast.store.engine_record import EngineRecordFile


class Part(StrEnum):
    """REPLICA: our own process. ENGINE: the first process of its engine. CORE: the one that computes, where it is another."""

    REPLICA = "replica"
    ENGINE = "engine"
    CORE = "core"


STUB = "triton_python_backend_stub"  # runs a model of Triton's Python backend
CORES = (*(title for titles in VITAL.values() for title in titles), STUB)


def pid_of(run_file: Path, part: Part) -> int:
    """The pid of a part of this replica's engine; 0 when there is none."""
    record = EngineRecordFile.of(run_file).read()
    if record is None or record.machine != sessions.machine() or not record.pid:
        return 0
    ones = sessions.members(record.pid, record.token)
    if not any(one.pid == record.pid and one.start_ticks == record.start_ticks for one in ones):
        return 0
    if part is Part.ENGINE:
        return record.pid
    return next((one.pid for one in ones if one.pid != record.pid and sessions.title(one.pid).startswith(CORES)), 0)


def argument(run_file: Path, word: str) -> str:
    """What follows this word on the command line of the engine's first process; empty when it is not there."""
    words = sessions.words(pid_of(run_file, Part.ENGINE))
    for number, one in enumerate(words):
        if one == word and number + 1 < len(words):
            return words[number + 1]
        if one.startswith(f"{word}="):
            return one.partition("=")[2]
    return ""


def strike(pid: int, blow: Blow) -> int | None:
    """KILL or FREEZE one process; its pidfd, to be closed or thawed with, or None when it is gone."""
    with contextlib.suppress(ProcessLookupError):
        pidfd = os.pidfd_open(pid)
        signal.pidfd_send_signal(pidfd, signal.Signals[blow.value])
        return pidfd
    return None
