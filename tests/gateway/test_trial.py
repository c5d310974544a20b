"""What a trial finds out over one line."""

import asyncio

from holdfast.gateway.trial import PATIENCE_S, trial
from holdfast.sim.clock import VirtualClock, run
from holdfast.sim.replica import SimReplica


def _ask(**state):
    """A trial of a replica in this state. Returns what it found and how long that took."""

    async def story():
        clock = VirtualClock()
        replica = SimReplica("a", clock)
        line = replica.dial()
        for name, value in state.items():
            setattr(replica, name, value)
        found = await trial(line, 1, clock)
        await clock.sleep(0)
        assert line.in_flight == 0
        assert replica.frozen or replica.running() == 0
        return found, clock.now()

    return run(story())


def test_one_token_is_enough():
    assert _ask() == ("", 0.02)


def test_a_replica_that_says_nothing_has_failed_after_a_while():
    assert _ask(frozen=True) == ("no token within 10 s", PATIENCE_S)
    assert _ask(lying=True) == ("no token within 10 s", PATIENCE_S)


def test_one_that_breaks_answers_off_has_failed():
    assert _ask(cut_after=0) == ("the stream ended without a finish", 0.02)


def test_a_refusal_says_nothing():
    assert _ask(refusing="its queue is full")[0] is None
    assert _ask(draining=True)[0] is None


def test_one_that_dies_meanwhile_has_failed():
    async def story():
        clock = VirtualClock()
        replica = SimReplica("a", clock, step_s=1.0)
        asked = asyncio.ensure_future(trial(replica.dial(), 1, clock))
        await clock.sleep(0.5)
        replica.kill()
        assert await asked == "connection reset by peer"

    run(story())
