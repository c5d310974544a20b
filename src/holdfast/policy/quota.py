"""Quotas: what a tenant may use, taken from the ledger's accounts before the work and corrected after it.

Two kinds of account. `requests/...` counts requests a second: the site's and the tenant's own. `tokens/...` counts tokens a
minute, prompts and answers alike. A request's tokens are reserved when it is let in, at their upper bound (prompt plus longest
answer), and settled to what was delivered when it ends. So whoever has N streams open has reserved for all N, and none of them
can overshoot; a limiter that charges at a stream's end lets N times max_tokens slip by (seen in Envoy AI Gateway).

A quota that is smaller than one request's bound would never admit it: such a request goes once the account is full, and the
account then stands below zero until the overdraft has flowed in.
"""

from msgspec import Struct

from holdfast.domain.board import Ledger, Rate
from holdfast.domain.tenant import Limits

SITE = "requests/site"
SITE_RATE, TENANT_RATE, TENANT_QUOTA = "site_rate", "tenant_rate", "tenant_quota"  # names of the limits
_MINUTE_S = 60.0
TENANTS_MAX = 4096


class Short(Struct, frozen=True):
    """A limit that has not enough left. `used`, `size` and `unit` are for the refusal's body; it frees in `wait_s`."""

    limit: str
    wait_s: float
    used: float
    size: float
    unit: str
    why: str


class _Accounts(Struct):
    """A tenant's accounts; a rule is None where there is no limit."""

    limits: Limits
    requests: str
    requests_rule: Rate | None
    tokens: str
    tokens_rule: Rate | None


def requests_account(tenant: str) -> str:
    """The account of a tenant's requests."""
    return f"requests/{tenant}"


def tokens_account(tenant: str) -> str:
    """The account of a tenant's tokens."""
    return f"tokens/{tenant}"


def requests_rule(limits: Limits) -> Rate | None:
    """The tenant's own request rate, if it has one."""
    return Rate(limits.requests_per_s, max(limits.burst, 1.0)) if limits.requests_per_s > 0 else None


def tokens_rule(limits: Limits) -> Rate | None:
    """The tenant's token quota, if it has one. Without a burst of its own, a minute's tokens may be used at once."""
    if limits.tokens_per_min <= 0:
        return None
    return Rate(limits.tokens_per_min / _MINUTE_S, limits.tokens_burst or limits.tokens_per_min)


class Quota:
    """Asks the ledger for a tenant. `site` is the rate of the whole site; None leaves it out."""

    def __init__(self, ledger: Ledger, site: Rate | None = None) -> None:
        self._ledger = ledger
        self._site = site
        self._known: dict[str, _Accounts] = {}

    def enter(self, limits: Limits, now: float) -> Short | None:
        """Take one request from the tenant's rate and from the site's. None: both had one. Short: neither was charged."""
        accounts = self._of(limits)
        rule = accounts.requests_rule
        if rule is not None:
            wait_s = self._ledger.take(accounts.requests, 1.0, rule, now)
            if wait_s > 0:
                return _rate_short(TENANT_RATE, f"tenant {limits.tenant}", rule, wait_s)
        if self._site is not None:
            wait_s = self._ledger.take(SITE, 1.0, self._site, now)
            if wait_s > 0:
                if rule is not None:
                    self._ledger.give(accounts.requests, 1.0, rule, now)
                return _rate_short(SITE_RATE, "the site", self._site, wait_s)
        return None

    def leave(self, limits: Limits, now: float) -> None:
        """Give back what `enter` took: the request was turned away for another reason and cost nothing."""
        accounts = self._of(limits)
        if accounts.requests_rule is not None:
            self._ledger.give(accounts.requests, 1.0, accounts.requests_rule, now)
        if self._site is not None:
            self._ledger.give(SITE, 1.0, self._site, now)

    def reserve(self, limits: Limits, work_tokens: int, now: float) -> float:
        """Reserve a request's upper bound in tokens. Returns 0.0 when it is reserved, else the seconds until it could be."""
        accounts = self._of(limits)
        if accounts.tokens_rule is None:
            return 0.0
        return self._ledger.take(accounts.tokens, float(work_tokens), accounts.tokens_rule, now)

    def settle(self, limits: Limits, reserved: int, used: int, now: float) -> None:
        """Give back what was reserved and not used; a use beyond the reservation is charged."""
        accounts = self._of(limits)
        if accounts.tokens_rule is not None and reserved != used:
            self._ledger.give(accounts.tokens, float(reserved - used), accounts.tokens_rule, now)

    def short(self, limits: Limits, work_tokens: int, wait_s: float, now: float) -> Short:
        """What to say to a request that `reserve` sent away with this wait."""
        used, size = self.state(limits, now)
        return Short(
            TENANT_QUOTA,
            wait_s,
            used,
            limits.tokens_per_min,
            "tokens/min",
            f"tenant {limits.tenant} may use {limits.tokens_per_min:g} tokens a minute, {size:g} of them at once; {used:.0f} are "
            f"reserved or used and this request may need {work_tokens}: it fits in {wait_s:.1f} s",
        )

    def state(self, limits: Limits, now: float) -> tuple[float, float]:
        """Tokens of the quota that are reserved or used now, and how many may be at most; (0, 0) without a quota."""
        accounts = self._of(limits)
        rule = accounts.tokens_rule
        if rule is None:
            return 0.0, 0.0
        return rule.burst - self._ledger.level(accounts.tokens, rule, now), rule.burst

    def site_state(self, now: float) -> tuple[float, float]:
        """What the site's bucket holds now, and at most; (0, 0) when there is none."""
        if self._site is None:
            return 0.0, 0.0
        return self._ledger.level(SITE, self._site, now), self._site.burst

    @property
    def sharing(self) -> str:
        """With whom all this is shared at present."""
        return self._ledger.sharing

    def _of(self, limits: Limits) -> _Accounts:
        known = self._known.get(limits.tenant)
        if known is None or known.limits is not limits:
            if len(self._known) >= TENANTS_MAX:
                self._known.clear()  # nothing is lost: it is worked out again from the limits
            tenant = limits.tenant
            known = _Accounts(
                limits,
                requests_account(tenant),
                requests_rule(limits),
                tokens_account(tenant),
                tokens_rule(limits),
            )
            self._known[tenant] = known
        return known


def _rate_short(limit: str, whose: str, rule: Rate, wait_s: float) -> Short:
    why = f"{whose} may send {rule.per_s:g} requests/s; the next one fits in {max(wait_s * 1000, 1):.0f} ms"
    if limit == SITE_RATE:
        why = f"over the site's rate of {rule.per_s:g} requests/s; the next one fits in {max(wait_s * 1000, 1):.0f} ms"
    return Short(limit, wait_s, rule.burst, rule.per_s, "requests/s", why)
