"""Pressure: how much more the site is asked for than it can give, as all its workers together see it. What the ladder goes by.

One tenant that asks for ten times its share is no reason to give everybody less: it is refused what goes beyond, and the others
notice nothing. So it is not requests that are counted but tenants. The site is overrun when most of those who ask are refused.
Of one that asked a few times only nothing is known; all of these are judged together, and count as many as they are.
"""

from collections.abc import Callable, Iterable

from msgspec import Struct

from holdfast.domain.board import WorkerView
from holdfast.policy.error_rate import SHORT, Asked, ErrorRate, Errors

HIGH = 0.05  # who is refused a larger share than this suffers
LOW = 0.01  # who is refused a smaller one does not
REQUESTS_MIN = 5  # who asked less often is judged together with the others who did


class Pressure(Struct, frozen=True, kw_only=True):
    """`errors` of the whole window, `errors_now` of its last part. Shares are 0 to 1."""

    errors: Errors = Errors()
    errors_now: Errors = Errors()
    wait_s: float = 0.0  # of those who were let in lately, where they wait longest
    owed: int = 0  # answers that run or wait
    slots: int = 0
    use: float = 0.0  # of the replicas' slots or cache, whichever is scarcer; 1 without a replica
    refused_high: float = 0.0  # share of tenants of whose requests more than HIGH were refused for want of room
    refused_low: float = 0.0  # the same with LOW
    reserved_refused: float = 0.0  # share of the requests of tenants with a reservation that were


def pressure_of(views: Iterable[WorkerView], rate: ErrorRate, now: float, reserved: Callable[[str], bool]) -> Pressure:
    """The sum of all workers' views. `rate` has seen them; `reserved` tells whether a tenant has a reservation."""
    views = list(views)
    slots, use = _use(views)
    theirs = [asked for tenant, asked in rate.tenants.items() if reserved(tenant)]
    shares = _shares(list(rate.tenants.values()))
    count = max(1, len(rate.tenants))
    return Pressure(
        errors=rate.errors(now),
        errors_now=rate.errors(now, rate.window_s / SHORT),
        wait_s=max((view.wait_s for view in views), default=0.0),
        owed=sum(view.waiting + view.running for view in views),
        slots=slots,
        use=use,
        refused_high=sum(tenants for share, tenants in shares if share > HIGH) / count,
        refused_low=sum(tenants for share, tenants in shares if share > LOW) / count,
        reserved_refused=sum(one.refused for one in theirs) / max(1, sum(one.requests for one in theirs)),
    )


def _shares(asked: list[Asked]) -> list[tuple[float, int]]:
    """Shares of requests that were refused, each with the number of tenants that it stands for."""
    found = [(one.share, 1) for one in asked if one.requests >= REQUESTS_MIN]
    few = [one for one in asked if one.requests < REQUESTS_MIN]
    if few:
        found.append((sum(one.refused for one in few) / sum(one.requests for one in few), len(few)))
    return found


def _use(views: list[WorkerView]) -> tuple[int, float]:
    """Slots of all serving replicas, and the share of slots or cache that all workers together have taken."""
    slots: dict[str, int] = {}
    places: dict[str, int] = {}
    running = held = 0
    for view in views:
        for one in view.replicas:
            if one.state and not one.state.startswith("serving"):
                continue
            slots[one.boot] = max(one.slots, slots.get(one.boot, 0))
            places[one.boot] = max(one.tokens_max, places.get(one.boot, 0))
            running += one.running
            held += one.held_tokens
    total, room = sum(slots.values()), sum(places.values())
    if not total:
        return 0, 1.0
    return total, max(running / total, held / room if room else 0.0)
