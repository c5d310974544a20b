"""Gray: equal replicas never are, one twice as slow always is, whatever the noise."""

from random import Random

from hypothesis import given, settings
from hypothesis import strategies as some

from holdfast.policy.gray import SAMPLES_MIN, Even, Pace, Slow, of_replica

Z = 3.5


def paces(random: Random, step_s: float, noise: float, batch: int = 8, count: int = 60) -> list[Pace]:
    """Samples with multiplicative noise, and one spike in twenty of up to ten times."""
    found = []
    for at in range(count):
        spike = random.uniform(1, 10) if random.random() < 0.05 else 1.0
        step = step_s * random.uniform(1 - noise, 1 + noise) * spike
        found.append(Pace(float(at), batch + random.randrange(3) - 1, step))
    return found


@settings(max_examples=300, deadline=None)
@given(
    seed=some.integers(0, 2**32),
    replicas=some.integers(2, 8),
    noise=some.floats(0, 0.5),
    step_ms=some.floats(0.1, 500),
    batch=some.integers(4, 64),
)
def test_equal_peers_are_never_slow(seed: int, replicas: int, noise: float, step_ms: float, batch: int) -> None:
    random = Random(seed)
    all_paces = [paces(random, step_ms / 1000, noise, batch) for _ in range(replicas)]
    for own in range(replicas):
        peers = all_paces[:own] + all_paces[own + 1 :]
        assert isinstance(of_replica(all_paces[own], peers, Z), Even)


@settings(max_examples=300, deadline=None)
@given(
    seed=some.integers(0, 2**32),
    replicas=some.integers(2, 8),
    noise=some.floats(0, 0.5),
    step_ms=some.floats(0.1, 500),
    batch=some.integers(4, 64),
)
def test_one_twice_as_slow_is_found_and_nobody_else(
    seed: int, replicas: int, noise: float, step_ms: float, batch: int
) -> None:
    random = Random(seed)
    slow = paces(random, 2 * step_ms / 1000, noise, batch)
    peers = [paces(random, step_ms / 1000, noise, batch) for _ in range(replicas - 1)]
    verdict = of_replica(slow, peers, Z)
    assert isinstance(verdict, Slow)
    assert verdict.z > Z
    for own in range(replicas - 1):
        assert isinstance(of_replica(peers[own], [*peers[:own], *peers[own + 1 :], slow], Z), Even)


def steady(step_s: float, batch: float, count: int = 60) -> list[Pace]:
    return [Pace(float(at), batch, step_s) for at in range(count)]


def test_the_sentence_names_both_paces() -> None:
    verdict = of_replica(steady(0.03, 8), [steady(0.01, 8)], Z)
    assert verdict == Slow(
        verdict.z,
        "it takes 30.0 ms a step at a batch of 8, its peers 10.0 ms: 13.5 deviations slower, the limit is 3.5",
    )


def test_who_carries_more_may_be_slower() -> None:
    assert of_replica(steady(0.03, 32), [steady(0.01, 8)], Z) == Even("no peer has worked at a batch of 32")


def test_who_is_slower_while_carrying_less_is_slow() -> None:
    assert isinstance(of_replica(steady(0.03, 8), [steady(0.01, 32)], Z), Slow)


def test_too_few_samples_say_nothing() -> None:
    few = SAMPLES_MIN - 1
    assert of_replica(steady(9, 8, few), [steady(0.01, 8)], Z) == Even(f"{few} samples of its pace are too few")
    assert isinstance(of_replica(steady(9, 8), [steady(0.01, 8, few)], Z), Even)


def test_an_idle_site_compares_nobody() -> None:
    assert isinstance(of_replica(steady(9, 8), [[], []], Z), Even)


def test_peers_that_differ_among_themselves_widen_the_bounds() -> None:
    uneven = [steady(0.010, 8), steady(0.020, 8), steady(0.030, 8)]
    assert isinstance(of_replica(steady(0.05, 8), uneven, Z), Even)
    assert isinstance(of_replica(steady(0.10, 8), uneven, Z), Slow)
