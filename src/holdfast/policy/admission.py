"""Admission: may this request in, must it wait, or is it refused? Decided before any replica is touched.

Two limits so far: a rate (token bucket) and a bounded queue in front of the replicas' slots. A request over the rate is
refused at once, with the time after which the bucket has a token again; a request that finds all slots taken waits, unless
the queue is full. A refusal costs microseconds, so it stays cheap under any offered load.
"""

from dataclasses import dataclass

from msgspec import Struct

from holdfast.policy.token_bucket import TokenBucket


class Admit(Struct, frozen=True):
    """Go ahead."""

    why: str = "a slot is free"


class Queue(Struct, frozen=True):
    """Wait for a slot; `position` counts those ahead."""

    position: int
    why: str


class Shed(Struct, frozen=True):
    """Refused: 429 is the rate's refusal, 503 says that all of us are full."""

    retry_after_s: float
    status: int
    why: str


Verdict = Admit | Queue | Shed
ADMIT = Admit()


@dataclass
class Admission:
    """`queue_max` bounds the waiting requests; `queue_wait_s` is how long one may wait before it is refused."""

    bucket: TokenBucket
    queue_max: int
    queue_wait_s: float

    def ask(self, now: float, running: int, waiting: int, slots: int) -> Verdict:
        """The verdict on one arriving request, given how many run and wait and how many slots all replicas have."""
        lacking_s = self.bucket.take(now)
        if lacking_s > 0:
            rate = self.bucket.rate_per_s
            return Shed(
                max(lacking_s, 0.001),
                429,
                f"over the site's rate of {rate:g} requests/s; the next one fits in {lacking_s * 1000:.0f} ms",
            )
        if running < slots and waiting == 0:
            return ADMIT
        state = f"all {slots} slots are taken" if slots else "no replica may take traffic"
        if waiting >= self.queue_max:
            return Shed(1.0, 503, f"{state} and {waiting} requests wait, the queue's limit")
        return Queue(waiting, f"{state}; {waiting} requests are ahead")

    def outwaited(self, waited_s: float) -> Shed:
        """The verdict on a request whose patience in the queue is over."""
        return Shed(1.0, 503, f"no slot came free in {waited_s:.1f} s of waiting")
