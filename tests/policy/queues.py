"""Fair queues for tests, and those who wait in them."""

from math import inf

from holdfast.policy.fair_queue import FairQueue, Waiting


def room(_: Waiting) -> str:
    return ""


def queue(credit: float = 0.0, **weights: float) -> FairQueue:
    return FairQueue(lambda tenant: weights.get(tenant, 1.0), credit)


def one(ticket: int, tenant: str = "a", work: int = 10, band: int = 0, deadline: float = inf) -> Waiting:
    return Waiting(ticket, tenant, band, deadline, work, 0.0, 100)


def drain(fair: FairQueue, fits=room) -> list[int]:
    gone = []
    while (waiting := fair.next(fits)) is not None:
        fair.charge(waiting.tenant, waiting.work)
        gone.append(waiting.ticket)
    return gone
