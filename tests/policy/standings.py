"""Processes as a supervisor sees them, for the tests of its rules."""

from msgspec import structs

from holdfast.domain.ailment import Ailment, Cure
from holdfast.domain.release import Release
from holdfast.domain.replica import Load, ReplicaState
from holdfast.domain.roster import Place, Roster
from holdfast.domain.site import Role
from holdfast.policy.standing import Fact, Rules, Seen, Standing

NOW = 1000.0
RULES = Rules()
RELEASE = Release(model="m", engine="scripted", digest="d1")


def serving(name: str = "replica-0", heard_at: float = NOW, **more: object) -> Standing:
    fact = Fact(
        alive=True,
        pid=7,
        boot=f"boot of {name}",
        address=f"unix:/{name}",
        ready=True,
        heard_at=heard_at,
        load=Load(slots=8),
        release=RELEASE,
    )
    one = Standing(
        name=name,
        role=Role.REPLICA,
        state=ReplicaState.SERVING,
        served_at=500.0,
        started_at=490.0,
        load_s=10.0,
        fact=fact,
    )
    return changed(one, **more)


def worker(name: str = "gateway-0", **more: object) -> Standing:
    fact = Fact(alive=True, pid=8, ready=True, heard_at=NOW)
    one = Standing(name=name, role=Role.GATEWAY, state=ReplicaState.SERVING, served_at=500.0, load_s=1.0, fact=fact)
    return changed(one, **more)


def control(**more: object) -> Standing:
    one = Standing(
        name="control",
        role=Role.CONTROL,
        state=ReplicaState.SERVING,
        served_at=500.0,
        load_s=1.0,
        fact=Fact(alive=True, pid=9, ready=True),
    )
    return changed(one, **more)


def changed(one: Standing, **more: object) -> Standing:
    """The standing with other fields; those of its fact may be named too."""
    facts = {key: more.pop(key) for key in list(more) if key in Fact.__struct_fields__}
    return structs.replace(one, fact=structs.replace(one.fact, **facts), **more)


def down(name: str = "replica-0", **more: object) -> Standing:
    """A replica without a process."""
    return structs.replace(Standing(name=name, role=Role.REPLICA), **more)


def ill(cure: Cure, on_suspicion: bool = True, why: str = "it is not well") -> Ailment:
    return Ailment(kind="slow", cure=cure, why=why, since=NOW - 60, on_suspicion=on_suspicion)


def world(*standings: Standing, **more: object) -> Seen:
    """What is seen, with a roster that needs no change."""
    replicas = [one for one in standings if one.role is Role.REPLICA]
    places = tuple(
        Place(
            replica=one.name,
            address=one.fact.address,
            boot=one.fact.boot,
            pid=one.fact.pid,
            weight=1.0 if one.state is ReplicaState.SERVING else 0.0,
            leaving="" if one.state is ReplicaState.SERVING else one.why,
        )
        for one in sorted(replicas, key=lambda one: one.name)
        if one.state in (ReplicaState.SERVING, ReplicaState.DRAINING) and one.fact.alive
    )
    wishes = more.get("wishes")
    out = {*wishes.drained, *wishes.condemned} if wishes else set()
    count = sum(1 for one in replicas if one.wanted and one.name not in out)
    roster = Roster(epoch=4, replicas=count if places else 0, release=RELEASE, places=places)
    return Seen(standings=standings, **{"roster": roster, **more})
