"""What a gate tells the other workers, and what it makes of what they tell: shares and fairness hold over all of them."""

from collections.abc import Iterable

from holdfast.domain.board import Board, TenantView, WorkerView
from holdfast.domain.ports import Clock
from holdfast.gateway.gate import Gate
from holdfast.gateway.gate_place import Account
from holdfast.policy.memory_shares import OWN_CONCURRENCY, OWN_MEMORY

TENANTS_TOLD = 256
EVERY_S = 0.1  # as often as they tell


def view_of(gate: Gate, now: float) -> WorkerView:
    """The gate as the board shows it. How answers ended, rates, rung, memory and replicas are for others to fill in."""
    level, size = gate.quota.site_state(now)
    refused: dict[str, int] = {}
    for account in gate.accounts.values():
        for name, count in account.refused.items():
            refused[name] = refused.get(name, 0) + count
    return WorkerView(
        worker="",
        running=gate.running,
        waiting=gate.queue.requests,
        waiting_kept=kept_off(gate, now) if gate.queue.requests else 0,
        waiting_own=held_back(gate) if gate.queue.requests else 0,
        waiting_tokens=gate.queue.work,
        wait_s=gate.waits.middle_s(now),
        drain_per_s=gate.pace.work_per_s(now),
        admitted=sum(account.admitted for account in gate.accounts.values()),
        refused=refused,
        bucket_level=level,
        bucket_size=size,
        sharing=gate.quota.sharing,
        tenants=tuple(tenant_view(gate, account, now) for account in busiest(gate.accounts.values())),
    )


def held_back(gate: Gate) -> int:
    """How many wait for their own tenant's limits."""
    total, used, count = gate.room.total(), gate.room.used(), 0
    for account in gate.accounts.values():
        waiting = gate.queue.backlog(account.limits.tenant)[0] if account.bound else 0
        if waiting and gate.shares.fits(account.limits, 1, total, used) in (OWN_CONCURRENCY, OWN_MEMORY):
            count += waiting
    return count


def kept_off(gate: Gate, now: float) -> int:
    """How many wait although something is free, since it is kept for others."""
    if not gate.headroom.any:
        return 0
    return sum(gate.fitting.kept_off(account.limits, now) for account in gate.accounts.values())


def busiest(accounts: Iterable[Account]) -> list[Account]:
    """Those who use most, where there are too many to tell of all."""
    found = list(accounts)
    if len(found) > TENANTS_TOLD:
        found.sort(key=lambda account: (account.running, account.served), reverse=True)
        del found[TENANTS_TOLD:]
    return found


def tenant_view(gate: Gate, account: Account, now: float) -> TenantView:
    """One tenant."""
    limits = account.limits
    used, size = gate.quota.state(limits, now) if limits.tokens_per_min else (0.0, 0.0)
    waiting, work = gate.queue.backlog(limits.tenant)
    return TenantView(
        tenant=limits.tenant,
        waiting=waiting,
        waiting_tokens=work,
        running=account.running,
        held_tokens=gate.shares.of(limits.tenant).tokens,
        served_tokens=account.served,
        headroom=gate.headroom.told(limits.tenant, limits.priority),
        admitted=account.admitted,
        refused=dict(account.refused),  # a copy: the view is kept while the account counts on
        quota_used=used,
        quota_size=size,
    )


class Ears:
    """Hears what other workers tell: what their tenants hold counts for the shares, and the work done for them for fairness."""

    def __init__(self, gate: Gate, board: Board, own: str) -> None:
        self._gate, self._board, self._own = gate, board, own
        self._served: dict[tuple[str, str], float] = {}

    async def run(self, clock: Clock) -> None:
        """Listen until cancelled."""
        while True:
            await clock.sleep(EVERY_S)
            self.hear(self._board.told())

    def hear(self, views: Iterable[WorkerView]) -> None:
        """The newest views of all living workers; ours among them says nothing new."""
        gate, served = self._gate, {}
        held: dict[str, tuple[int, int]] = {}
        needed: dict[tuple[str, int], float] = {}
        now = gate.clock.now()
        flooded, workers = 0, 1
        for view in views:
            if view.worker == self._own:
                continue
            workers += 1
            flooded += view.waiting > view.waiting_own + view.waiting_kept
            for one in view.tenants:
                slots, tokens = held.get(one.tenant, (0, 0))
                held[one.tenant] = slots + one.running, tokens + one.held_tokens
                self._active(one, needed, now)
                key = view.worker, one.tenant
                served[key] = one.served_tokens
                more = one.served_tokens - self._served.get(key, one.served_tokens)
                if more and gate.queue.requests:
                    gate.queue.charge(one.tenant, more)
        self._served = served
        gate.neighbours.flooded, gate.neighbours.workers = flooded, workers
        gate.shares.elsewhere(held)
        gate.headroom.elsewhere(needed)
        gate.serve()

    def _active(self, one: TenantView, needed: dict[tuple[str, int], float], now: float) -> None:
        """What one tenant in another worker means for the headroom."""
        if one.running or one.waiting or one.headroom:
            limits = self._gate.tenants.named(one.tenant)
            self._gate.headroom.seen(one.tenant, limits.weight, now)
            if one.headroom:
                key = one.tenant, limits.priority
                needed[key] = needed.get(key, 0.0) + one.headroom
