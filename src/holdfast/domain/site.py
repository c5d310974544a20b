"""A site as it is told to others: what runs there, in which state, and why.

The supervisor publishes a SiteView; the control plane and `holdfast status` read it. Nobody acts on it: those who act look
at the processes themselves.
"""

from enum import StrEnum
from typing import Any

import msgspec
from msgspec import Struct, structs

from holdfast.domain.release import Release
from holdfast.domain.replica import Load, ReplicaState


class Role(StrEnum):
    """What a process is for. They stop in this order: first those that clients hold on to."""

    GATEWAY = "gateway"
    REPLICA = "replica"
    CONTROL = "control"


class Run(Struct, frozen=True, kw_only=True):
    """What a child says of itself; it writes this to the path in HOLDFAST_RUN_FILE, by atomic rename, once it is ready.

    `token` is HOLDFAST_TOKEN, repeated: a run file with another token belongs to an earlier life of the same name. A replica
    whose start takes long writes it before that too, with `ready` False and a new `stage` whenever it has come further:
    nobody dials it yet, and it is not given up while it moves. Likewise while its engine ends.
    """

    name: str
    pid: int
    token: str
    listen: str  # unix:/path or host:port
    start_ticks: int = 0  # field 22 of /proc/PID/stat
    boot: str = ""  # changes with every start of the process
    health: str = ""
    pulse: str = ""  # a file whose first 8 bytes are a double: the Clock's seconds of its last sign of life
    box: str = ""  # a file that is empty until this process dies of its own fault, then says how (its black box)
    ready: bool = True
    stage: str = ""  # how far the start has come: weights loaded 12/163 shards
    engine: str = ""  # a foreign engine's build, and what it can do
    device: str = ""  # where a foreign engine that was started computes: cpu, cuda:0,cuda:1; empty until that is known
    away: bool = False  # its engine runs elsewhere, and has been waited for in vain for a while: `stage` says why


class ProcessView(Struct, frozen=True, kw_only=True):
    """One process as `holdfast status` shows it."""

    name: str
    role: Role
    state: ReplicaState
    why: str
    pid: int = 0
    uptime_s: float = 0.0
    restarts: int = 0
    address: str = ""
    load: Load | None = None
    device: str = ""  # where a replica computes: cpu, cuda:0; of a foreign engine all its GPUs, or all that it may get
    epoch: int = 0  # the upgrade that it belongs to
    model: str = ""  # which model a replica serves: empty for the site's own, else the name of the smaller one
    stage: str = ""  # how far a start has come that takes long
    away: bool = False  # it waits for an engine that runs elsewhere and is not there
    engine: str = ""  # of a replica: embedded; a foreign one's build and abilities: vllm 0.32.0: ids in, ids out


class SiteView(Struct, frozen=True, kw_only=True):
    """The whole site. `at` is unix seconds."""

    name: str
    at: float
    supervisor_pid: int
    address: str  # of the API
    model: str
    release: Release | None = None
    processes: tuple[ProcessView, ...] = ()
    replicas: int = 0  # how many should serve; 0 where nobody has said
    replicas_why: str = ""  # what that number follows from


def plain(view: SiteView) -> dict[str, Any]:
    """The view as plain objects for people and scripts: loads with their field names, and whether anybody supervises."""
    body: dict[str, Any] = msgspec.to_builtins(view)
    for shown, process in zip(body["processes"], view.processes, strict=True):
        shown["load"] = structs.asdict(process.load) if process.load else None
    return {**body, "supervised": view.supervisor_pid != 0}
