from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.poison import Condemned, Death, Innocent, Suspect, after_death

CRASH = "Fatal Python error: Aborted"


def death(boot: str = "a", **more) -> Death:
    return Death(boot=boot, **more)


def test_everybody_in_flight_at_a_crash_is_a_suspect():
    verdict = after_death([death(crash=CRASH, tokens=90)], 2)
    assert verdict == Suspect(f"it was in flight when an engine died of its own fault: {CRASH}", 2)


def test_a_silent_death_speaks_against_those_that_were_being_read():
    verdict = after_death([death(tokens=0)], 2)
    assert verdict == Suspect("its prompt was being read when an engine ended without a word", 2)


def test_a_silent_death_says_nothing_about_those_that_had_begun_to_answer():
    assert after_death([death(tokens=1)], 2) == Innocent("its engine was ended from outside")
    assert isinstance(after_death([death(tokens=9), death("b", tokens=1)], 2), Innocent)


def test_the_third_silent_death_makes_a_suspect_of_anybody():
    verdict = after_death([death(tokens=9), death("b", tokens=1), death("c", tokens=5)], 2)
    assert isinstance(verdict, Suspect)
    assert verdict.why == "it was in flight at 3 deaths of engines"


def test_an_engine_that_had_been_quiet_was_frozen_and_its_end_says_nothing():
    assert isinstance(after_death([death(silent_s=2.5)], 2), Innocent)
    assert isinstance(after_death([death(silent_s=2.5, age_s=2.4, unread=1000)], 2), Suspect)  # reading takes its time
    assert isinstance(after_death([death(silent_s=60.0, unread=10**6)], 2), Innocent)
    assert isinstance(after_death([death(silent_s=60.0, crash=CRASH)], 2), Suspect)


def test_an_attempt_that_waited_in_the_replica_was_not_being_read():
    assert isinstance(after_death([death(queued=1)], 2), Innocent)
    assert isinstance(after_death([death(age_s=2.5)], 2), Innocent)
    assert isinstance(after_death([death(age_s=2.5, unread=1000)], 2), Suspect)
    assert isinstance(after_death([death(), death("b", on_trial=True, queued=1)], 2), Suspect)


def test_the_only_suspect_on_a_second_engine_that_dies_is_condemned():
    loud = after_death([death(crash=CRASH, tokens=7), death("b", crash=CRASH, on_trial=True)], 2)
    assert loud == Condemned(f"2 engines died of it, the last while it was the only suspect: {CRASH}", True)
    silent = after_death([death(), death("b", on_trial=True)], 2)
    assert isinstance(silent, Condemned)
    assert not silent.certain


def test_a_trial_that_was_ended_from_outside_is_held_again():
    verdict = after_death([death(crash=CRASH), death("b", on_trial=True, tokens=1)], 2)
    assert isinstance(verdict, Suspect)
    assert verdict.why == "it was on trial when its engine was ended from outside: it ended without a word"
    assert isinstance(after_death([death(), death("b", on_trial=True, silent_s=5.0)], 2), Suspect)


def test_a_death_that_another_suspect_explains_lets_everybody_else_go():
    assert after_death([death(crash=CRASH, explained=True)], 2) == Innocent("another answer was on trial there")


def test_who_was_cleared_and_sees_another_crash_has_to_get_past_that_point():
    twice = after_death([death(crash=CRASH, tokens=5), death("b", crash=CRASH, tokens=20)], 2)
    assert isinstance(twice, Suspect)
    assert twice.tokens == 22
    far = after_death([death(crash=CRASH), death("b", crash=CRASH, tokens=5000)], 2)
    assert isinstance(far, Suspect)
    assert far.tokens == 64


KILLERS = st.sampled_from([(CRASH, 0), (CRASH, 5), ("", 0)])


@given(KILLERS, st.integers(1, 40), st.integers(2, 6), st.randoms(use_true_random=False))
def test_one_poison_never_gets_a_third_engine(killer, innocents, replicas, chance):
    """A model of the fleet: after the first death suspects go one at a time per replica, in any order; others share freely."""
    crash, at = killer
    histories = {"poison": [death("r0", crash=crash, tokens=at)]}
    for number in range(innocents):
        histories[f"i{number}"] = [death("r0", crash=crash, tokens=chance.choice((0, 1, 30)))]
    suspects = [name for name, deaths in histories.items() if isinstance(after_death(deaths, 2), Suspect)]
    assert "poison" in suspects
    chance.shuffle(suspects)
    lost, turn = 1, 0
    while suspects:
        on_trial = [suspects.pop() for _ in range(min(max(1, replicas - lost), len(suspects)))]
        turn += 1
        if "poison" not in on_trial:
            continue  # all of them made their tokens: cleared, for the poison alone kills
        lost += 1
        histories["poison"].append(death("r1", crash=crash, tokens=0, on_trial=True))
        assert isinstance(after_death(histories["poison"], 2), Condemned)
        for name, deaths in histories.items():
            if name != "poison":  # whoever shared that engine with it
                shared = [*deaths, death("r1", crash=crash, tokens=chance.choice((0, 3)), explained=True)]
                assert isinstance(after_death(shared, 2), Innocent)
    assert lost == 2


def test_an_engine_that_was_not_heard_before_the_attempt_came_may_have_been_dead_by_then():
    assert isinstance(after_death([death(silent_s=1.39, age_s=0.5)], 2), Innocent)
    on_trial = after_death([death(crash=CRASH, tokens=15), death("b", silent_s=1.39, age_s=0.5, on_trial=True)], 2)
    assert isinstance(on_trial, Suspect)
    assert isinstance(after_death([death(silent_s=0.6, age_s=0.01)], 2), Suspect)


def test_running_out_of_memory_is_what_all_in_flight_did_together():
    for crash in (
        "MemoryError: ",
        "RuntimeError: CUDA out of memory. Tried to allocate 2 GiB",
        "torch.OutOfMemoryError: x",
    ):
        decoding, reading = Death(boot="a/1", crash=crash, tokens=5), Death(boot="a/1", crash=crash)
        assert isinstance(after_death([decoding], 2), Innocent)
        assert isinstance(after_death([reading], 2), Suspect)
        again = Death(boot="b/1", crash=crash, on_trial=True)
        assert after_death([reading, again], 2) == Condemned(
            f"2 engines died of it, the last while it was the only suspect: {crash}", certain=False
        )


def test_whoever_was_there_twice_when_others_drew_the_blame_goes_on_alone():
    twice = [death(crash=CRASH, explained=True), death("r2", crash=CRASH, explained=True)]
    verdict = after_death(twice, 2)
    assert isinstance(verdict, Suspect)
    assert verdict.why == "it was there at 2 deaths that others were blamed for"
