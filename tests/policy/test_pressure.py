import pytest

from holdfast.domain.board import ReplicaView, TenantView, WorkerView
from holdfast.policy.error_rate import ErrorRate
from holdfast.policy.pressure import pressure_of


def replica(boot, running, held=0, state="serving"):
    return ReplicaView(
        replica=boot, boot=boot, running=running, slots=10, held_tokens=held, tokens_max=1000, state=state
    )


def test_slots_are_counted_once_and_what_runs_in_every_worker():
    views = [
        WorkerView(worker="a", wait_s=0.2, waiting=3, running=5, replicas=(replica("r0", 3), replica("r1", 2))),
        WorkerView(worker="b", wait_s=0.7, waiting=1, running=5, replicas=(replica("r0", 4), replica("r1", 1))),
    ]
    found = pressure_of(views, ErrorRate(10), 0.0, lambda tenant: False)
    assert (found.slots, found.use, found.wait_s, found.owed) == (20, 0.5, 0.7, 14)


def test_the_scarcer_of_slots_and_cache_counts_and_only_of_those_that_serve():
    views = [
        WorkerView(worker="a", replicas=(replica("r0", 1, held=900), replica("r1", 0, state="suspect: silent"))),
    ]
    found = pressure_of(views, ErrorRate(10), 0.0, lambda tenant: False)
    assert (found.slots, found.use) == (10, 0.9)
    nobody = pressure_of([WorkerView(worker="a", waiting=2)], ErrorRate(10), 0.0, lambda tenant: False)
    assert (nobody.slots, nobody.use, nobody.owed) == (0, 1.0, 2)


def crowd(at, count, refused):
    """Ten tenants; the first `count` of them have had so many requests refused, of a hundred each."""
    rows = [
        TenantView(
            tenant=f"t{i}",
            admitted=0 if not at else 100 - refused * (i < count),
            refused={"queue_wait": refused if at and i < count else 0},
        )
        for i in range(10)
    ]
    return [WorkerView(worker="a", at=float(at), tenants=tuple(rows))]


@pytest.mark.parametrize(("count", "refused", "high", "low"), [(1, 90, 0.1, 0.1), (6, 3, 0.0, 0.6), (10, 50, 1.0, 1.0)])
def test_not_requests_are_counted_but_tenants(count, refused, high, low):
    rate = ErrorRate(10)
    rate.see(crowd(0, count, refused), 0.0)
    rate.see(crowd(1, count, refused), 1.0)
    found = pressure_of(crowd(1, count, refused), rate, 1.0, lambda tenant: tenant == "t0")
    assert (found.refused_high, found.refused_low) == (high, low)
    assert found.reserved_refused == refused / 100


def test_those_who_asked_a_few_times_are_judged_together():
    def rare(at, refused):
        """A greedy one, refused nine times of ten, and nine who asked three times each, two of them refused once or not."""
        rows = [TenantView(tenant="greedy", admitted=10 * at, refused={"queue_wait": 90 * at})]
        for i in range(9):
            bad = at * (i < refused)
            rows.append(TenantView(tenant=f"t{i}", admitted=3 * at - bad, refused={"queue_wait": bad}))
        return [WorkerView(worker="a", at=float(at), tenants=tuple(rows))]

    for refused, high in ((0, 0.1), (1, 0.1), (2, 1.0)):
        rate = ErrorRate(10)
        rate.see(rare(0, refused), 0.0)
        rate.see(rare(1, refused), 1.0)
        assert pressure_of(rare(1, refused), rate, 1.0, lambda tenant: False).refused_high == high
