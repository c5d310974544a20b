import pytest

from holdfast.domain.board import TenantView, WorkerView
from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused, Expired, NoReplica, Overloaded, Poisonous
from holdfast.policy.error_rate import ErrorRate, Errors, is_ours


def told(worker, at, answered, failed=0, **tenants):
    """A view; a tenant is (admitted, refused by limit)."""
    rows = tuple(TenantView(tenant=name, admitted=row[0], refused=row[1]) for name, row in tenants.items())
    return WorkerView(worker=worker, at=at, answered=answered, failed=failed, tenants=rows)


def test_what_was_there_at_the_first_look_is_nobodys():
    rate = ErrorRate(10)
    rate.see([told("a", 0.9, 5000, 5000)], 1.0)
    assert rate.errors(1.0) == Errors(0, 0)
    rate.see([told("a", 1.9, 5010, 5001)], 2.0)
    assert rate.errors(2.0) == Errors(10, 1)
    assert rate.errors(2.0).share == pytest.approx(0.1)


def test_the_workers_are_added_up_and_the_window_slides():
    rate = ErrorRate(10)
    for second in range(40):
        views = [told("a", second, 10 * second, second), told("b", second, 20 * second)]
        rate.see(views, float(second))
        if second >= 10:
            assert rate.errors(float(second)) == Errors(300, 10)
            assert rate.errors(float(second), 2.5) == Errors(90, 3)


def test_a_worker_that_was_started_anew_counts_from_zero():
    rate = ErrorRate(10)
    rate.see([told("a", 0, 100, 50)], 0.0)
    rate.see([told("a", 1, 110, 50)], 1.0)
    rate.see([told("a", 2, 4, 1)], 2.0)
    assert rate.errors(2.0) == Errors(14, 1)


def test_a_view_that_is_seen_twice_counts_once_and_one_that_paused_is_not_lost():
    rate = ErrorRate(10)
    rate.see([told("a", 0, 0)], 0.0)
    rate.see([told("a", 1, 10, 2)], 1.0)
    rate.see([told("a", 1, 10, 2)], 1.2)
    assert rate.errors(1.2) == Errors(10, 2)
    rate.see([], 2.0)
    rate.see([told("a", 3, 15, 2)], 3.0)
    assert rate.errors(3.0) == Errors(15, 2)


def test_only_want_of_room_counts_as_refused_and_quiet_tenants_are_forgotten():
    rate = ErrorRate(10)
    full, own = {"queue_wait": 3, "no_replica": 1}, {"site_rate": 9, "degraded": 9, "tenant_quota": 9}
    rate.see([told("a", 0, 0, x=(0, {}))], 0.0)
    rate.see([told("a", 1, 0, x=(16, full | own), y=(5, {}))], 1.0)
    assert rate.tenants["x"].requests == 20
    assert rate.tenants["x"].share == pytest.approx(0.2)
    assert "y" not in rate.tenants  # it came with what it has: nobody knows since when
    rate.see([told("a", 2, 0, x=(16, full | own), y=(7, {}))], 2.0)
    assert rate.tenants["y"].requests == 2
    rate.see([told("a", 13, 0, x=(16, full | own), y=(7, {}))], 13.0)
    assert rate.tenants == {}


@pytest.mark.parametrize("fault", [EngineLost("x"), EngineRefused("x"), NoReplica("x")])
def test_our_faults(fault):
    assert is_ours(fault)


@pytest.mark.parametrize("fault", [BadRequest("x"), Expired("x"), Overloaded("x", 1.0), Poisonous("x", "f", 0.0)])
def test_faults_that_a_client_could_make(fault):
    assert not is_ours(fault)
