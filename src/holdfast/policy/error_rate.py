"""Error rate: what share of the site's answers ended in an error of ours, and who was refused for want of room, of late.

An answer ends well, or by a fault of ours; only these two count. Wrong requests, hang-ups, refusals and deadlines that ran out
do not: with them one client could degrade the site for all others by asking for the impossible. What a replica does wrong to
one attempt, and another replica makes good, does not count either: the client saw nothing, and that replica has its own breaker.

Workers tell totals since their start; what counts is the difference between two looks. A worker that is seen for the first
time brings nothing: nobody knows when it counted what it has. Totals that fall belong to a new life of the same name.

Two windows, as burn-rate alerts have them (Google, The Site Reliability Workbook, 2018, chapter 5: a long one against noise,
and a short one so that what is over counts no more).
"""

from collections import deque
from collections.abc import Iterable

from msgspec import Struct

from holdfast.domain.board import TenantView, WorkerView
from holdfast.domain.fault import EngineLost, EngineRefused, Fault, NoReplica

NO_ROOM = frozenset(
    {"queue_requests", "queue_tokens", "queue_bytes", "queue_wait", "deadline", "no_replica", "capacity"}
)  # names of limits that say: we have too little, whoever asks
SHORT = 4  # the short window is such a part of the long one


def is_ours(fault: Fault) -> bool:
    """Whether an answer that ended so is counted as one that we failed."""
    return isinstance(fault, EngineLost | EngineRefused | NoReplica)


class Errors(Struct, frozen=True):
    """Answers that ended within a window, and those among them that we failed."""

    answers: int = 0
    failed: int = 0

    @property
    def share(self) -> float:
        return self.failed / self.answers if self.answers else 0.0


class Asked(Struct):
    """One tenant's requests within the window: all that were let in or refused for want of room, and the latter."""

    requests: int = 0
    refused: int = 0

    @property
    def share(self) -> float:
        return self.refused / self.requests if self.requests else 0.0


class _Slice(Struct):
    at: float
    answers: int
    failed: int
    asked: dict[str, tuple[int, int]]


class _Told(Struct):
    """What of a view is counted. By tenant: all requests, and those that were refused."""

    at: float
    answers: int
    failed: int
    asked: dict[str, tuple[int, int]]


class ErrorRate:
    """`window_s`: seconds over which is counted. Holds as many slices as there were looks within it."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self.tenants: dict[str, Asked] = {}
        self._slices: deque[_Slice] = deque()
        self._last: dict[str, _Told] = {}

    def see(self, views: Iterable[WorkerView], now: float) -> None:
        """Take down what all living workers have told by now."""
        one, present = _Slice(now, 0, 0, {}), {}
        for view in views:
            before = self._last.get(view.worker)
            if before is not None and before.at == view.at:
                present[view.worker] = before
                continue
            told = present[view.worker] = _Told(view.at, view.answered, view.failed, _asked(view.tenants))
            if before is not None:
                _add(one, before if before.answers <= told.answers else None, told)
        self._last = {
            worker: told for worker, told in self._last.items() if now - told.at <= self.window_s
        } | present  # one that told nothing for a moment is still known when it tells again
        for tenant, (requests, refused) in one.asked.items():
            asked = self.tenants.setdefault(tenant, Asked())
            asked.requests += requests
            asked.refused += refused
        self._slices.append(one)
        while self._slices and now - self._slices[0].at >= self.window_s:
            self._drop(self._slices.popleft())

    def errors(self, now: float, last_s: float | None = None) -> Errors:
        """Of the whole window, or of its last seconds only."""
        since = now - (self.window_s if last_s is None else last_s)
        answers = failed = 0
        for one in reversed(self._slices):
            if one.at <= since:
                break
            answers += one.answers
            failed += one.failed
        return Errors(answers, failed)

    def _drop(self, one: _Slice) -> None:
        for tenant, (requests, refused) in one.asked.items():
            asked = self.tenants[tenant]
            asked.requests -= requests
            asked.refused -= refused
            if not asked.requests:
                del self.tenants[tenant]


def _asked(tenants: Iterable[TenantView]) -> dict[str, tuple[int, int]]:
    found = {}
    for tenant in tenants:
        refused = 0
        for name, count in tenant.refused.items():
            if name in NO_ROOM:
                refused += count
        found[tenant.tenant] = (tenant.admitted + refused, refused)
    return found


def _add(one: _Slice, before: _Told | None, told: _Told) -> None:
    """What came since `before`; None: since the worker's start."""
    known, asked = {} if before is None else before.asked, one.asked
    one.answers += told.answers - (0 if before is None else before.answers)
    one.failed += max(0, told.failed - (0 if before is None else before.failed))
    for tenant, row in told.asked.items():
        old = known.get(tenant)
        if old == row:
            continue
        if old is None:
            if before is not None:  # told again after it was left out, or new: nobody knows since when it counts
                continue
            old = (0, 0)
        requests, refused = row[0] - old[0], row[1] - old[1]
        if requests > 0 and refused >= 0:
            had = asked.get(tenant, (0, 0))
            asked[tenant] = (had[0] + requests, had[1] + refused)
