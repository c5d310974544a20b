"""Which GPUs a replica gets: the next so many of those that the settings name, and none that another replica has.

Foreign engines take nearly all memory of a GPU when they start, so two on one would not both come up. A site that wants it all
the same says so with the engine's own word for its share of the memory, in [engine] args.

Where kinds are mixed, GPUs are dealt out among those replicas only that compute on them: an engine that runs already takes none
here, nor does the server in the xllamacpp wheel.
"""

from collections.abc import Sequence

from msgspec import Struct

from holdfast.domain.engine import FOREIGN, EngineKind, StartFailure
from holdfast.domain.engine_words import name_of
from holdfast.domain.replica import StartFault
from holdfast.domain.settings import ReplicaSettings
from holdfast.domain.settings_engine import Dealt, EngineSettings, deal
from holdfast.policy.launch_fit import COUNTS, fewest
from holdfast.policy.launch_plan import Gpu
from holdfast.policy.model_facts import ModelFacts
from holdfast.policy.profile_llamacpp import is_python

SHARES = ("gpu-memory-utilization", "mem-fraction-static", "n-gpu-layers", "ngl")  # words that divide a GPU


class Ask(Struct, frozen=True, kw_only=True):
    """One replica's question. `devices`: indices as set, none for CPU. `seen`: the machine's GPUs by index; None: not known.

    `turn`: its place among the replicas on GPUs, of which there are `replicas`.
    """

    devices: tuple[int, ...]
    seen: tuple[Gpu, ...] | None
    number: int  # of the replica
    turn: int
    replicas: int
    wanted: int = 0  # GPUs for each; 0: what the profile says
    context: int = 2048
    args: tuple[str, ...] = ()


def on_gpus(dealt: Dealt) -> bool:
    """Whether this engine computes on GPUs of ours, where there are some."""
    return not dealt.url and not (dealt.kind is EngineKind.LLAMACPP and is_python(dealt.program))


def turn_of(replica: ReplicaSettings, engine: EngineSettings, number: int) -> int:
    """How many of the replicas before this one compute on GPUs of ours."""
    return sum(on_gpus(deal(replica.engine, replica.url, engine, one)) for one in range(number))


def gpus_each(replica: ReplicaSettings, engine: EngineSettings) -> int:
    """How many each gets: [engine] gpus; one beside Holdfast's own engine, which takes no more; 0: what the profile says."""
    kinds = (deal(replica.engine, replica.url, engine, one).kind for one in range(1 + len(engine.mix)))
    return engine.gpus or int(any(kind not in FOREIGN for kind in kinds))


def crowded(replica: ReplicaSettings, engine: EngineSettings, number: int) -> tuple[int, int] | None:
    """(GPU, replica) where Holdfast's own engine, as replica `number`, comes to a GPU that a foreign engine has to itself."""
    devices, each = indices_of(replica.devices), gpus_each(replica, engine)
    at = turn_of(replica, engine, number) * each
    if at < len(devices) or not devices:
        return None
    at %= len(devices)
    for one in range(number):
        dealt, first = deal(replica.engine, replica.url, engine, one), turn_of(replica, engine, one) * each
        if dealt.kind in FOREIGN and on_gpus(dealt) and first <= at < first + each <= len(devices):
            return devices[at], one
    return None


def indices_of(devices: str) -> tuple[int, ...]:
    """`cuda:0,cuda:1` as (0, 1); what is no GPU is left out."""
    named = [one.strip().partition(":") for one in devices.split(",")]
    return tuple(int(number or 0) for kind, _, number in named if kind == "cuda" and (not number or number.isdigit()))


def gpus_of(facts: ModelFacts, ask: Ask) -> tuple[int, ...] | StartFailure:
    """The indices of this replica's GPUs, none for CPU, or why it can't have any."""
    if not ask.devices:
        return ()
    missing = [one for one in ask.devices if ask.seen is not None and one >= len(ask.seen)]
    if missing:
        there = f"{len(ask.seen or ())} GPU{'' if len(ask.seen or ()) == 1 else 's'}"
        why = f"[replica] devices names cuda:{missing[0]}, and this machine has {there}"
        return StartFailure(StartFault.DEVICE, f"{why}: name those that are there, counted from 0")
    twice = next((one for at, one in enumerate(ask.devices) if one in ask.devices[:at]), None)
    if twice is not None:
        why = f"[replica] devices names cuda:{twice} more than once, and engines take nearly all memory of a GPU"
        return StartFailure(StartFault.DEVICE, f"{why}: name each once")
    count = ask.wanted or _by_profile(facts, ask)
    groups = len(ask.devices) // count
    divided = any(name_of(word) in SHARES for word in ask.args)
    if ask.turn >= groups and not divided:
        why = f"replica {ask.number} needs {count} GPU{'' if count == 1 else 's'} of its own"
        has = f"[replica] devices names {len(ask.devices)}, enough for {groups} replica{'' if groups == 1 else 's'}"
        fewer = f"set [replica] count to {groups}" if ask.turn == ask.number else "lower [replica] count"
        return StartFailure(StartFault.DEVICE, f"{why}, and {has}: name more, or {fewer}")
    first = ask.turn % groups * count
    return ask.devices[first : first + count]


def seen_of(seen: tuple[Gpu, ...] | None, indices: Sequence[int]) -> tuple[Gpu, ...] | None:
    """What these GPUs are."""
    return None if seen is None else tuple(seen[one] for one in indices)


def _by_profile(facts: ModelFacts, ask: Ask) -> int:
    """The fewest on which it fits; where that is not known, an equal share for each replica. At least 1."""
    among = seen_of(ask.seen, ask.devices)
    least = fewest(facts, among, ask.context) if among is not None and facts.weights_bytes else 0
    share = max(1, len(ask.devices) // max(1, ask.replicas))
    return least or max(count for count in COUNTS if count <= (len(ask.devices) if among is not None else share))
