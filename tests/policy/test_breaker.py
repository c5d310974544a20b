"""The breaker's regimes: failures in a row, rates by way of failing, trials, and the last replica."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.breaker import Breaker, Closed, Kept, Opened, Peers, Way

PAIR = Peers(out=0, replicas=2, others=1)


def _opened(now=0.0):
    breaker = Breaker(failures_max=3, open_s=1, open_max_s=3)
    verdicts = [breaker.failed(Way.STREAM, now - ago, PAIR) for ago in (0.2, 0.1, 0)]
    assert verdicts[:2] == [None, None]
    assert verdicts[2] == Opened("3 failures in a row, the last stream: it rests, and is tried again after 1 s")
    return breaker


def test_it_opens_after_so_many_failures_in_a_row_and_not_before():
    breaker = Breaker(failures_max=3)
    for moment, way in enumerate((Way.DIED, Way.SILENT, None, Way.STREAM, Way.DIED)):
        if way is None:
            breaker.ended(moment)
        else:
            assert breaker.failed(way, moment, PAIR) is None
    assert not breaker.is_open
    assert isinstance(breaker.failed(Way.STREAM, 5, PAIR), Opened)
    assert breaker.is_open


@pytest.mark.parametrize("way", [Way.DIED, Way.SILENT, Way.STREAM])
def test_what_fails_in_one_moment_is_one_failure(way):
    breaker = Breaker(failures_max=3)
    assert not any(breaker.failed(way, 1.0, PAIR) for _ in range(30))
    assert (breaker.failures, breaker.window.total) == (1, 1)


def _work(breaker, every, way, begin_s=0.0, attempts=200):
    """Attempts a tenth of a second apart, of which each `every`th fails. Returns the verdicts and when the first came."""
    found = []
    for number in range(1, attempts + 1):
        now = begin_s + number / 10
        if number % every:
            breaker.ended(now)
        elif (verdict := breaker.failed(way, now, PAIR)) is not None:
            found.append((now, verdict))
    return found


@pytest.mark.parametrize("way", list(Way))
def test_it_opens_at_more_than_five_in_a_hundred_of_one_way(way):
    ((at, verdict),) = _work(Breaker(), 16, way)  # 6.25 %
    assert at == pytest.approx(4.8)  # the third failure: 3 of 48, and never two in a row
    assert verdict.why.startswith(f"3 of 48 attempts within 30 s failed in one way ({way}), more than 5%: it rests")


@pytest.mark.parametrize("way", list(Way))
def test_it_stays_closed_at_four_in_a_hundred(way):
    assert _work(Breaker(), 25, way, attempts=2000) == []


def test_ways_are_counted_apart():
    """4 % and 4 % are twice the ordinary, not 8 % of one disease."""
    breaker = Breaker()
    for number in range(1, 2000):
        now = number / 10
        way = {0: Way.STREAM, 12: Way.SILENT}.get(number % 25)
        if way is None:
            breaker.ended(now)
        else:
            assert breaker.failed(way, now, PAIR) is None


def test_few_attempts_prove_nothing():
    for ended, opens in ((16, False), (17, True)):
        breaker = Breaker(volume_min=20)
        for number in range(ended):
            breaker.ended(number / 10)
        assert [breaker.failed(Way.STREAM, number, PAIR) for number in (3, 4)] == [None, None]
        assert isinstance(breaker.failed(Way.STREAM, 5, PAIR), Opened) == opens  # 3 of 19, 3 of 20


def test_two_failures_are_chance():
    breaker = Breaker()
    for number in range(25):
        breaker.ended(number / 10)
    assert [breaker.failed(Way.STREAM, number, PAIR) for number in (3, 4)] == [None, None]  # 2 of 27


def test_what_is_older_than_the_window_is_forgotten():
    breaker = Breaker(window_s=30, volume_min=5)
    for number in range(18):
        breaker.ended(number / 100)
    breaker.failed(Way.STREAM, 1, PAIR)
    breaker.failed(Way.STREAM, 2, PAIR)
    assert breaker.failed(Way.STREAM, 34, PAIR) is None  # three in all, one of them within 30 s
    assert breaker.window.total == 1


def test_refusals_count_by_their_rate_alone():
    breaker = Breaker(failures_max=3)
    assert [breaker.failed(Way.REFUSED, number, PAIR) for number in range(10)] == [None] * 10
    assert breaker.failures == 0


def test_it_never_opens_on_the_last_replica_and_says_so_once_a_window():
    breaker = Breaker(failures_max=3, window_s=30)
    told = [breaker.failed(Way.STREAM, number, Peers(out=1, replicas=2, others=0)) for number in range(60)]
    assert not breaker.is_open
    whys = [verdict.why for verdict in told if isinstance(verdict, Kept)]
    assert len(whys) == 2
    assert whys[0] == (
        "3 failures in a row, the last stream, but it goes on: it is the last one that serves, of 2: suspicion is not enough"
    )


def test_at_most_half_of_the_replicas_are_out():
    breaker = Breaker(failures_max=1)
    assert isinstance(breaker.failed(Way.STREAM, 0, Peers(out=2, replicas=4, others=1)), Kept)
    assert isinstance(breaker.failed(Way.STREAM, 1, Peers(out=1, replicas=4, others=2)), Opened)


def test_one_trial_at_a_time_after_the_wait():
    breaker = _opened()
    assert not breaker.trial_due(0.99)
    assert breaker.trial_due(1.0)
    breaker.trying()
    assert not breaker.trial_due(5.0)
    assert breaker.is_open  # the trial is out: nobody else


def test_a_good_trial_closes_it_and_forgets():
    breaker = _opened()
    breaker.trying()
    verdict = breaker.tried("", 1.2)
    assert verdict == Closed("a trial went well 1.2 s after: 3 failures in a row, the last stream")
    assert (breaker.is_open, breaker.failures, breaker.window.total) == (False, 0, 0)


def test_a_bad_trial_doubles_the_wait_up_to_the_cap():
    breaker, now = _opened(), 0.0
    for wait_s, after_s in ((1, 2), (2, 3), (3, 3), (3, 3)):
        assert not breaker.trial_due(now + wait_s - 0.01)
        now += wait_s
        assert breaker.trial_due(now)
        breaker.trying()
        assert breaker.tried("no token", now) == Opened(f"a trial failed: no token; the next is after {after_s} s")


def test_a_trial_that_says_nothing_is_repeated_after_the_same_wait():
    breaker = _opened()
    breaker.trying()
    assert breaker.tried(None, 1.1) is None
    assert breaker.is_open
    assert (breaker.trial_due(2.0), breaker.trial_due(2.1)) == (False, True)


def test_answers_that_were_under_way_change_nothing_while_it_is_open():
    breaker = _opened()
    breaker.ended(0.5)
    assert breaker.failed(Way.DIED, 0.6, PAIR) is None
    assert breaker.is_open
    assert breaker.trial_due(1.0)


HISTORY = st.lists(st.tuples(st.sampled_from([None, *Way]), st.floats(0, 12)), max_size=120)


@given(HISTORY)
def test_the_window_holds_exactly_what_ended_within_it_give_or_take_a_bucket(history):
    breaker, now, all_ended = Breaker(errors_share=1.0, failures_max=1000, window_s=30), 0.0, []
    for way, gap in history:
        now += gap + 0.06
        all_ended.append((now, way))
        breaker.ended(now) if way is None else breaker.failed(way, now, PAIR)
        window = breaker.window
        for each in Way:
            least = sum(1 for at, one in all_ended if one is each and now - at < 27)
            most = sum(1 for at, one in all_ended if one is each and now - at <= 30)
            assert least <= window.totals.get(each, 0) <= most
        assert window.total >= sum(window.totals.values())
        assert sum(1 for at, _ in all_ended if now - at < 27) <= window.total


@given(st.integers(0, 9999))
def test_any_history_with_trials_closes_again_once_trials_go_well(seed):
    random, breaker, now = Random(seed), Breaker(failures_max=2, open_s=1, open_max_s=4), 0.0
    for _ in range(200):
        now += random.expovariate(2)
        if breaker.trial_due(now):
            breaker.trying()
            breaker.tried(random.choice(["", "bad", None]), now)
        elif random.random() < 0.5:
            breaker.failed(random.choice(list(Way)), now, PAIR)
        else:
            breaker.ended(now)
    if breaker.is_open:
        assert breaker.trial_due(now + 4)
        breaker.trying()
        assert isinstance(breaker.tried("", now + 4), Closed)
    assert not breaker.is_open
