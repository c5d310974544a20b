"""Supervision: the one next step, and why. Each test names what is seen and reads what is said."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from holdfast.domain.procedure import Done, Wait
from holdfast.domain.release import Release
from holdfast.domain.replica import AWAY, Happening, IllegalMove, Load, ReplicaState
from holdfast.domain.roster import Place, Roster
from holdfast.domain.site import Role
from holdfast.policy.restart_intensity import Death
from holdfast.policy.standing import (
    Doubt,
    Fact,
    Forget,
    Halt,
    Kill,
    Note,
    Publish,
    Rules,
    Seen,
    Standing,
    Start,
    Tell,
    noted,
)
from holdfast.policy.supervision import next_step

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
    return structs.replace(one, **more)


def gateway(**more: object) -> Standing:
    fact = Fact(alive=True, pid=8, ready=True)
    one = Standing(
        name="gateway-0", role=Role.GATEWAY, state=ReplicaState.SERVING, served_at=500.0, load_s=1.0, fact=fact
    )
    return structs.replace(one, **more)


def roster_of(*ones: Standing) -> Roster:
    places = tuple(
        Place(replica=one.name, address=one.fact.address, boot=one.fact.boot, pid=one.fact.pid) for one in ones
    )
    return Roster(epoch=4, release=RELEASE, places=places)


def seen(*standings: Standing, **more: object) -> Seen:
    replicas = [one for one in standings if one.role is Role.REPLICA]
    listed = [one for one in replicas if one.state is ReplicaState.SERVING]
    roster = more.pop("roster", None) or roster_of(*listed)
    wanted = len([one for one in replicas if one.wanted]) if roster.places else 0
    return Seen(standings=standings, roster=structs.replace(roster, replicas=wanted), **more)


def dead(one: Standing, exit_code: int | None = None, last_words: str = "") -> Standing:
    return structs.replace(one, fact=Fact(pid=one.fact.pid, exit_code=exit_code, last_words=last_words))


def test_when_all_is_well_it_looks_again_in_a_second():
    assert next_step(seen(serving(), gateway()), RULES, NOW) == Wait(NOW + 1, "all is well")


@pytest.mark.parametrize(
    ("exit_code", "words", "why"),
    [
        (-9, "loading", "replica-0 (pid 7) was ended by signal 9"),
        (1, "out of memory", "replica-0 (pid 7) ended with code 1: out of memory"),
        (0, "", "replica-0 (pid 7) ended with code 0"),
        (None, "", "replica-0 (pid 7) is gone"),
    ],
)
def test_a_death_is_taken_down_first_with_how_it_came(exit_code, words, why):
    step = next_step(seen(dead(serving(), exit_code, words)), RULES, NOW)
    assert step == Note(name="replica-0", happening=Happening.DIED, why=why)


def test_the_roster_lets_go_of_the_dead_before_anything_is_started():
    down = structs.replace(dead(serving()), state=ReplicaState.DOWN)
    step = next_step(seen(down, serving("replica-1"), roster=roster_of(serving(), serving("replica-1"))), RULES, NOW)
    assert isinstance(step, Publish)
    assert step.why == "roster 5: replica-1 may serve"
    places = roster_of(serving("replica-1")).places
    assert step.roster == Roster(epoch=5, replicas=2, release=RELEASE, places=places)


def test_one_that_ends_its_engine_leaves_the_roster_before_it_is_gone():
    ending = structs.replace(serving(), fact=Fact(alive=True, pid=7, heard_at=NOW, stage="ends its engine"))
    other = serving("replica-1")
    step = next_step(seen(ending, other, roster=roster_of(serving(), other)), RULES, NOW)
    assert isinstance(step, Publish)
    assert [place.replica for place in step.roster.places] == ["replica-1"], "nobody can be dialled without an address"


def test_what_is_down_and_wanted_is_started():
    down = Standing(name="replica-0", role=Role.REPLICA)
    step = next_step(seen(down), RULES, NOW)
    assert step == Start(name="replica-0", why="start replica-0: it is wanted and does not run")


def test_what_died_twice_waits():
    deaths = (Death(at=NOW - 5, served_s=1, why=""), Death(at=NOW - 1, served_s=1, why=""))
    down = Standing(name="replica-0", role=Role.REPLICA, deaths=deaths)
    assert next_step(seen(down), RULES, NOW) == Wait(NOW + 1, "replica-0, death 2: next start in 9.0 s")


def test_an_adopted_process_is_taken_down_as_running_and_kept_in_the_roster():
    adopted = structs.replace(serving(), state=ReplicaState.DOWN, served_at=None)
    step = next_step(seen(adopted, roster=roster_of(serving())), RULES, NOW)
    assert step == Note(name="replica-0", happening=Happening.STARTED, why="replica-0 (pid 7) runs")
    unheard = Fact(alive=True, pid=7)
    starting = structs.replace(adopted, state=ReplicaState.STARTING, started_at=NOW, fact=unheard)
    assert isinstance(next_step(seen(starting, roster=roster_of(serving())), RULES, NOW), Wait)


def test_a_restarted_process_does_not_inherit_the_place_of_its_predecessor():
    starting = Standing(
        name="replica-0",
        role=Role.REPLICA,
        state=ReplicaState.STARTING,
        started_at=NOW,
        fact=Fact(alive=True, pid=99),
    )
    step = next_step(seen(starting, roster=roster_of(serving())), RULES, NOW)
    assert isinstance(step, Publish)
    assert step.roster.places == ()


def test_a_replica_of_another_release_stays_outside():
    other = serving("replica-1")
    other = structs.replace(other, fact=structs.replace(other.fact, release=structs.replace(RELEASE, digest="d2")))
    assert isinstance(next_step(seen(serving(), other, roster=roster_of(serving())), RULES, NOW), Wait)


def test_half_the_limit_of_silence_is_suspicious():
    step = next_step(seen(serving(heard_at=NOW - 3), serving("replica-1")), RULES, NOW)
    assert step == Note(
        name="replica-0",
        happening=Happening.SILENT,
        why="replica-0 (pid 7) has answered no ping for 3.0 s",
    )


def test_the_limit_of_silence_kills():
    suspect = serving(heard_at=NOW - 6, state=ReplicaState.SUSPECT)
    step = next_step(seen(suspect, serving("replica-1")), RULES, NOW)
    assert step == Kill(name="replica-0", why="kill replica-0 (pid 7): it answered no ping for 6.0 s, the limit is 5 s")
    killed = structs.replace(suspect, killed_at=NOW)
    assert isinstance(next_step(seen(killed, serving("replica-1")), RULES, NOW), Wait), "killed twice in one moment"


def test_a_single_replica_is_judged_too():
    assert isinstance(next_step(seen(serving(heard_at=NOW - 6, state=ReplicaState.SUSPECT)), RULES, NOW), Kill)


def test_one_that_answers_again_is_cleared():
    step = next_step(seen(serving(state=ReplicaState.SUSPECT), serving("replica-1")), RULES, NOW)
    assert step == Note(name="replica-0", happening=Happening.MOVED, why="replica-0 (pid 7) answers again")


def test_when_all_are_silent_at_once_it_doubts_itself_and_judges_nobody():
    silent = (serving(heard_at=NOW - 6), serving("replica-1", heard_at=NOW - 5.5))
    step = next_step(seen(*silent), RULES, NOW)
    assert step == Doubt(
        why="all replicas fell silent at once: it is likelier that this machine is starved", all_silent=True
    )
    assert isinstance(next_step(seen(*silent, doubting_since=NOW), RULES, NOW), Wait)


def test_all_silent_one_after_the_other_is_no_coincidence_of_ours():
    one = serving(heard_at=NOW - 6, state=ReplicaState.SUSPECT)
    other = serving("replica-1", heard_at=NOW - 3)
    assert isinstance(next_step(seen(one, other), RULES, NOW), Note)


def test_a_late_look_judges_nobody():
    step = next_step(seen(serving(heard_at=NOW - 60), serving("replica-1"), late_s=55.0), RULES, NOW)
    assert step == Doubt(why="this look came 55.0 s late: silences are counted from now", all_silent=False)
    fresh = seen(serving(heard_at=NOW - 60), serving("replica-1"), trusted_since=NOW)
    assert isinstance(next_step(fresh, RULES, NOW), Wait)


def test_one_that_never_becomes_ready_is_killed():
    starting = Standing(
        name="replica-0",
        role=Role.REPLICA,
        state=ReplicaState.STARTING,
        started_at=NOW - 301,
        fact=Fact(alive=True, pid=7),
    )
    assert next_step(seen(starting), RULES, NOW) == Kill(
        name="replica-0", why="kill replica-0 (pid 7): it is not ready after 301 s"
    )


def test_what_is_not_wanted_leaves_the_roster_then_leaves_then_is_forgotten():
    extra = serving(wanted=False)
    step = next_step(seen(extra), RULES, NOW)
    assert step == Note(
        name="replica-0",
        happening=Happening.TOLD_TO_LEAVE,
        why="replica-0 (pid 7) has to leave: it is not wanted any more",
    )
    draining = structs.replace(extra, state=ReplicaState.DRAINING, since=NOW, why="it has to leave: a reason")
    draining = structs.replace(draining, fact=structs.replace(extra.fact, load=Load(running=3)))
    step = next_step(seen(draining, roster=roster_of(extra)), RULES, NOW)
    assert isinstance(step, Publish)
    assert step.why == "roster 5: nobody may serve, replica-0 is leaving"
    (place,) = step.roster.places
    assert (place.weight, place.leaving) == (0.0, "it has to leave: a reason")
    step = next_step(seen(draining, roster=step.roster), RULES, NOW)
    assert step == Tell(name="replica-0", grace_s=RULES.replica_grace_s, why="tell replica-0 (pid 7) to leave")
    gone = structs.replace(dead(draining), state=ReplicaState.DOWN, told_at=NOW)
    assert isinstance(next_step(seen(gone, roster=roster_of(extra)), RULES, NOW), Publish)
    assert next_step(seen(gone), RULES, NOW) == Forget(name="replica-0", why="replica-0 is neither wanted nor there")


def test_a_stopping_site_lets_the_gateway_go_first_and_keeps_the_roster_till_then():
    step = next_step(seen(serving(), gateway(), stopping="Ctrl-C"), RULES, NOW)
    assert step == Note(
        name="gateway-0", happening=Happening.TOLD_TO_LEAVE, why="gateway-0 (pid 8) has to leave: Ctrl-C"
    )
    draining = gateway(state=ReplicaState.DRAINING, told_at=NOW, since=NOW)
    step = next_step(seen(serving(), draining, stopping="Ctrl-C"), RULES, NOW)
    assert step == Wait(NOW + 1, "waiting for replica-0 (pid 7), gateway-0 (pid 8) to leave")


def test_a_stopping_site_starts_nothing_and_ends():
    down = Standing(name="replica-0", role=Role.REPLICA)
    assert next_step(seen(down, stopping="Ctrl-C"), RULES, NOW) == Done("everything has stopped: Ctrl-C")
    failed = seen(down, stopping="no model", failed=True)
    assert next_step(failed, RULES, NOW) == Done("everything has stopped: no model", ok=False)


def faulty(name: str, role: Role) -> Standing:
    death = Death(at=NOW, served_s=0, why="")
    fact = Fact(pid=7, exit_code=2, last_words="no config.json")
    return Standing(name=name, role=role, deaths=(death,), fact=fact)


def test_a_start_that_can_not_succeed_is_not_repeated():
    step = next_step(seen(faulty("replica-0", Role.REPLICA), serving("replica-1")), RULES, NOW)
    assert step == Note(name="replica-0", happening=Happening.GAVE_UP, why="replica-0 can't be started: no config.json")


def test_a_site_without_hope_halts_and_one_with_a_serving_replica_does_not():
    hopeless = structs.replace(
        faulty("replica-0", Role.REPLICA),
        state=ReplicaState.QUARANTINED,
        why="replica-0 can't be started: no config.json",
    )
    assert next_step(seen(hopeless), RULES, NOW) == Halt(why="replica-0 can't be started: no config.json")
    assert isinstance(next_step(seen(hopeless, serving("replica-1")), RULES, NOW), Wait)
    step = next_step(seen(serving(), faulty("gateway-0", Role.GATEWAY)), RULES, NOW)
    assert step == Halt(why="gateway-0 can't be started: no config.json")


def test_a_gateway_that_has_served_is_tried_for_ever():
    deaths = tuple(Death(at=NOW - 10 + index, served_s=1, why="") for index in range(9))
    down = Standing(name="gateway-0", role=Role.GATEWAY, load_s=1, deaths=deaths, fact=Fact(pid=8, exit_code=2))
    verdict = next_step(seen(serving(), down), RULES, NOW)
    assert verdict == Wait(NOW + 1, "gateway-0, death 9: next start in 3.0 s")


def test_a_death_that_was_asked_for_does_not_count():
    told = serving(state=ReplicaState.DRAINING, told_at=NOW - 1)
    left = Note(name="replica-0", happening=Happening.DIED, why="it left")
    assert noted(told, left, NOW, 0.5).deaths == ()
    crashed = structs.replace(left, why="it crashed")
    assert noted(serving(), crashed, NOW, 0.5).deaths == (Death(at=NOW, served_s=500.0, why="it crashed", jitter=0.5),)


ROLES = st.sampled_from(Role)
FACTS = st.builds(
    Fact,
    alive=st.booleans(),
    pid=st.just(7),
    exit_code=st.sampled_from([None, 0, 1, 2, -9]),
    boot=st.just("b"),
    ready=st.booleans(),
    heard_at=st.floats(NOW - 100, NOW),
)
STANDINGS = st.builds(
    Standing,
    name=st.just("one"),
    role=ROLES,
    wanted=st.booleans(),
    state=st.sampled_from(ReplicaState),
    why=st.just("a reason"),
    served_at=st.sampled_from([None, 500.0]),
    started_at=st.just(NOW),
    told_at=st.sampled_from([None, NOW]),
    fact=FACTS,
)


@given(one=STANDINGS, stopping=st.sampled_from(["", "Ctrl-C"]))
def test_whatever_is_seen_each_note_is_a_legal_move_and_the_steps_come_to_rest(one, stopping):
    """Obey on paper: notes move the state, acts change nothing but what they say. A dozen steps must be enough."""
    world = Seen(standings=(one,), stopping=stopping)
    for _ in range(12):
        step = next_step(world, RULES, NOW)
        if isinstance(step, Wait | Done | Start | Forget):
            return
        if isinstance(step, Note):
            try:
                one = noted(one, step, NOW, 0.0)
            except IllegalMove as error:
                raise AssertionError(f"{step} from {one.state}: {error}") from error
        elif isinstance(step, Tell):
            one = structs.replace(one, told_at=NOW)
        elif isinstance(step, Kill):
            one = structs.replace(one, killed_at=NOW)
        elif isinstance(step, Publish):
            world = structs.replace(world, roster=step.roster)
        elif isinstance(step, Halt):
            world = structs.replace(world, stopping=step.why, failed=True)
        else:
            assert isinstance(step, Doubt)
            world = structs.replace(world, doubting_since=NOW)
        world = structs.replace(world, standings=(one,))
    raise AssertionError(f"a dozen steps and no rest: {step}")


def test_an_engine_outside_may_be_away_as_often_as_it_likes():
    one = serving()
    for _ in range(10):
        died = structs.replace(one, fact=Fact(pid=7, exit_code=AWAY, last_words="connection refused"))
        one = noted(died, Note(name="replica-0", happening=Happening.DIED, why="it ended"), NOW, 0.5)
        assert one.deaths == ()
        one = structs.replace(one, state=ReplicaState.SERVING)
