"""Demand: what replicas say of their load and gateway workers tell on the board, made one figure for policy/scaling.py.

Replicas tell what they run and hold; workers tell what waits, how long it has waited, what was refused, and how many tokens were
promised. A worker that has told nothing lately is frozen or gone, and its word counts no more; where no worker tells anything,
the replicas' own word has to do.
"""

from collections import deque
from collections.abc import Callable, Iterable

from holdfast.domain.board import WorkerView
from holdfast.domain.replica import ReplicaState
from holdfast.policy.scaling import ROOM_LIMITS, Demand
from holdfast.policy.standing import UP, Standing

STALE_S = 3.0
REFUSED_S = 5.0  # over which refusals are counted
LOOK_S = 0.5  # a load that is looked at more often than this tells nothing more

Views = Callable[[], list[WorkerView]]


class Demands:
    """Turns one look after another into demand. `read_views` gives the newest views of all workers."""

    def __init__(self, read_views: Views) -> None:
        self._read = read_views
        self._totals: dict[str, tuple[int, int]] = {}  # by worker: let in, refused for want of room
        self._flow: deque[tuple[float, int, int]] = (
            deque()
        )  # when; how many were let in since the look before; and refused
        self._looked_at = float("-inf")

    def look(self, standings: Iterable[Standing], now: float) -> Demand | None:
        """The demand now; None when the last look is too short ago."""
        if now - self._looked_at < LOOK_S:
            return None
        self._looked_at = now
        views = [view for view in self._read() if now - view.at <= STALE_S]
        self._count(views, now)
        up = [one for one in standings if one.state in UP and not one.model and one.fact.load is not None]
        serving = [one for one in up if one.state is ReplicaState.SERVING]
        loads = [one.fact.load for one in serving if one.fact.load is not None]
        places = sum(load.cache_tokens_max for load in loads)
        held = max(sum(load.cache_tokens for load in loads), _promised(views, {one.fact.boot for one in serving}))
        let_in = sum(count for _, count, _ in self._flow)
        refused = sum(count for _, _, count in self._flow)
        return Demand(
            serving=len(loads),
            slots=sum(load.slots for load in loads),
            running=sum(load.running for load in loads),
            waiting=sum(load.queued for load in loads) + sum(view.waiting - view.waiting_own for view in views),
            cache_share=held / places if places else 0.0,
            wait_s=max((view.wait_s for view in views), default=0.0),
            refused_share=refused / (let_in + refused) if refused else 0.0,
            tokens_per_s=sum(view.tokens_per_s for view in views),
        )

    def _count(self, views: list[WorkerView], now: float) -> None:
        """Add what has come since the last look. A worker that was replaced counts from 0; one that is new is not known yet."""
        totals = {view.worker: (view.admitted, _refused(view)) for view in views}
        came = went = 0
        for worker, (let_in, refused) in totals.items():
            before = self._totals.get(worker, (let_in, refused))
            came += let_in - before[0] if let_in >= before[0] else let_in
            went += refused - before[1] if refused >= before[1] else refused
        self._totals = totals
        self._flow.append((now, came, went))
        while self._flow[0][0] < now - REFUSED_S:
            self._flow.popleft()


def _refused(view: WorkerView) -> int:
    return sum(count for name, count in view.refused.items() if name in ROOM_LIMITS)


def _promised(views: list[WorkerView], boots: set[str]) -> int:
    """Cache places that the workers have given away on these replicas."""
    return sum(one.held_tokens for view in views for one in view.replicas if one.boot in boots)
