"""Quotas: reserved at the upper bound, settled to the use, and both of a request's rates charged or neither."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from holdfast.domain.board import Rate
from holdfast.domain.tenant import Limits
from holdfast.policy.quota import SITE, Quota, requests_account, tokens_account, tokens_rule
from holdfast.policy.token_bucket import OwnLedger

ACME = Limits(tenant="acme", requests_per_s=5, burst=3, tokens_per_min=6000, tokens_burst=1000)
FREE = Limits(tenant="free")


def test_a_tenant_over_its_rate_does_not_use_the_sites():
    ledger = OwnLedger()
    site = Rate(100.0, 10.0)
    quota = Quota(ledger, site)
    assert [quota.enter(ACME, 0.0) for _ in range(3)] == [None] * 3
    short = quota.enter(ACME, 0.0)
    assert (short.limit, short.wait_s, short.unit) == ("tenant_rate", 0.2, "requests/s")
    assert short.why == "tenant acme may send 5 requests/s; the next one fits in 200 ms"
    assert ledger.level(SITE, site, 0.0) == 7
    assert quota.site_state(0.0) == (7, 10)


def test_a_request_that_the_site_refuses_costs_the_tenant_nothing():
    ledger = OwnLedger()
    quota = Quota(ledger, Rate(10.0, 1.0))
    assert quota.enter(FREE, 0.0) is None
    short = quota.enter(ACME, 0.0)
    assert (short.limit, short.size) == ("site_rate", 10.0)
    assert short.why == "over the site's rate of 10 requests/s; the next one fits in 100 ms"
    assert ledger.level(requests_account("acme"), Rate(5, 3), 0.0) == 3
    quota.leave(FREE, 0.0)
    assert quota.enter(ACME, 0.0) is None


def test_without_limits_nothing_is_counted():
    ledger = OwnLedger()
    quota = Quota(ledger)
    assert quota.enter(FREE, 0.0) is None
    assert quota.reserve(FREE, 10**9, 0.0) == 0
    quota.settle(FREE, 10**9, 5, 0.0)
    assert (len(ledger), quota.state(FREE, 0.0)) == (0, (0, 0))


def test_the_refusal_says_what_is_used_and_when_it_fits():
    quota = Quota(OwnLedger())
    assert quota.reserve(ACME, 900, 0.0) == 0
    wait_s = quota.reserve(ACME, 300, 0.0)
    assert wait_s == 2.0
    assert quota.short(ACME, 300, wait_s, 0.0).why == (
        "tenant acme may use 6000 tokens a minute, 1000 of them at once; 900 are reserved or used and this request may need "
        "300: it fits in 2.0 s"
    )
    quota.settle(ACME, 900, 100, 0.0)
    assert quota.reserve(ACME, 300, 0.0) == 0
    assert quota.state(ACME, 0.0) == (400, 1000)


def test_a_minutes_tokens_are_the_burst_where_none_is_set():
    assert tokens_rule(structs.replace(ACME, tokens_burst=0.0)) == Rate(100.0, 6000.0)


def test_new_limits_of_a_tenant_count_at_once():
    quota = Quota(OwnLedger())
    assert quota.reserve(ACME, 1000, 0.0) == 0
    assert quota.reserve(structs.replace(ACME, tokens_burst=5000.0), 4000, 0.0) == 0


@given(
    st.lists(
        st.tuples(st.floats(0, 2), st.integers(1, 900), st.floats(0, 1), st.integers(0, 8)), min_size=1, max_size=150
    )
)
def test_whatever_ends_when_the_use_never_exceeds_the_quota(steps):
    """Streams open and end in any order, each uses any part of its reservation; used and reserved stay within the quota."""
    ledger, now, used = OwnLedger(), 0.0, 0.0
    quota, running = Quota(ledger), []
    for gap, tokens, share, end in steps:
        now += gap
        if quota.reserve(ACME, tokens, now) == 0:
            running.append((tokens, int(tokens * share)))
        if end < len(running):
            reserved, delivered = running.pop(end)
            quota.settle(ACME, reserved, delivered, now)
            used += delivered
        assert used + sum(reserved for reserved, _ in running) <= 1000 + 100 * now + 1e-4
    for reserved, delivered in running:
        quota.settle(ACME, reserved, delivered, now)
    assert ledger.level(tokens_account("acme"), Rate(100.0, 1000.0), now + 60) == 1000
