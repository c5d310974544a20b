"""Muster: how many replicas should serve, and which names run for that?

The number is an operator's word (`holdfast scale 3`) before the load's ([scaling]) before the settings' ([replica] count).
Beside those that serve, `warm` stand by (policy/standby.py). The names are the first so many of replica-0, replica-1, ... Where
the load decides, one that is drained, condemned or in quarantine is replaced by a further name, living ones before those that
would have to be started; but a device (or a machine) whose replicas were all drained gets no new ones: that is why they were
drained. Otherwise an operator has said how many there are, and one that is out is missing.

Of those that live, the last names leave first. A name that is out stays in sight, so that what is known against it is not lost.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from holdfast.domain.replica import ReplicaState
from holdfast.domain.wish import Wishes
from holdfast.policy.standing import Rules, Standing

LIVELY = (ReplicaState.STARTING, ReplicaState.SERVING, ReplicaState.WARM, ReplicaState.SUSPECT)


class Member(Struct, frozen=True):
    """A replica that could run here."""

    name: str
    device: str = ""


class Mustered(Struct, frozen=True, kw_only=True):
    """`names` should run, `serve` of them should serve. `why`: what that number follows from."""

    names: frozenset[str]
    serve: int
    why: str


def muster(pool: Sequence[Member], standings: Mapping[str, Standing], wishes: Wishes, rules: Rules) -> Mustered:
    """Who should run now. `rules.count` must be set."""
    serve, why = count(wishes, rules)
    if wishes.count is not None or not rules.scaling.on:
        return Mustered(names=frozenset(one.name for one in pool[: serve + rules.warm]), serve=serve, why=why)
    out = {one.name for one in pool if _out(one.name, standings.get(one.name), wishes)}
    closed = _closed(pool, standings, wishes)
    able = [one for one in pool if one.name not in out and (_lives(one, standings) or one.device not in closed)]
    able.sort(key=lambda one: not _lives(one, standings))  # stable: within each kind, in the pool's order
    names = {one.name for one in able[: serve + rules.warm]}
    return Mustered(names=frozenset(names | out), serve=serve, why=why)


def count(wishes: Wishes, rules: Rules) -> tuple[int, str]:
    """How many should serve, and by whose word."""
    begun = rules.count or 0
    if wishes.count is not None:
        return wishes.count, f"an operator asked for {wishes.count}; holdfast scale auto takes that back"
    if not rules.scaling.on:
        return begun, "[replica] count"
    low, high = min(rules.scaling.min, rules.scaling.max), rules.scaling.max
    return min(max(wishes.scaled or begun, low), high), f"the load, from {low} to {high}"


def _out(name: str, one: Standing | None, wishes: Wishes) -> bool:
    """Whether this one must not run: only a known one counts, or one that an operator or a supervisor has named."""
    quarantined = one is not None and one.state is ReplicaState.QUARANTINED
    return quarantined or name in wishes.drained or name in wishes.condemned


def _lives(member: Member, standings: Mapping[str, Standing]) -> bool:
    one = standings.get(member.name)
    return one is not None and one.state in LIVELY


def _closed(pool: Sequence[Member], standings: Mapping[str, Standing], wishes: Wishes) -> set[str]:
    """Devices on which replicas were drained and none lives that was not."""
    drained = {one.device for one in pool if one.name in wishes.drained}
    open_ = {one.device for one in pool if one.name not in wishes.drained and _lives(one, standings)}
    return drained - open_
