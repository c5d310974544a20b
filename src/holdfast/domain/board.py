"""What gateway workers tell one another, their supervisor, and whoever looks: the board.

Two kinds of word. Counts per replica change with every answer and are seen by the others at once, so that two workers don't
both give away the last slot. The view is for everything slower: it is told whole, ten times a second.
"""

from typing import Protocol

from msgspec import Struct

LIFE_DIGITS = 8  # hex digits at the end of a worker's name on the board, other ones in each of its lives


def short_name(worker: str) -> str:
    """A worker's name without what tells its lives apart: gateway-0.1 of gateway-0.1.9f3a02bc."""
    name, _, life = worker.rpartition(".")
    return name if len(life) == LIFE_DIGITS else worker


class TenantView(Struct, frozen=True, kw_only=True):
    """One tenant in one worker. Totals since the worker's start."""

    tenant: str
    waiting: int = 0
    waiting_tokens: int = 0
    running: int = 0
    held_tokens: int = 0  # places in the replicas' caches
    served_tokens: float = 0.0  # work done for it: prompts, and twice the answers; what fairness counts
    headroom: float = 0.0  # slots that it needed in its band while it used less than its share
    admitted: int = 0
    refused: dict[str, int] = {}  # by the name of the limit
    quota_used: float = 0.0  # tokens of its quota that are reserved or used now
    quota_size: float = 0.0
    admitted_per_s: float = 0.0  # these three over the last second
    refused_per_s: dict[str, float] = {}
    served_per_s: float = 0.0


class ReplicaView(Struct, frozen=True, kw_only=True):
    """One replica as one worker sees it."""

    replica: str
    boot: str
    running: int = 0
    slots: int = 0
    outstanding_tokens: int = 0  # work given to it by this worker and not done yet
    held_tokens: int = 0
    tokens_max: int = 0
    state: str = ""  # serving, suspect, leaving, warm, breaker open: ...


class WorkerView(Struct, frozen=True, kw_only=True):
    """One worker. `at` is the Clock's seconds; totals since the worker's start."""

    worker: str
    at: float = 0.0
    running: int = 0
    waiting: int = 0
    waiting_kept: int = 0  # of those, held back although something is free: it is kept for tenants that use less
    waiting_own: int = 0  # of those, held back by a limit of their own tenant: more replicas would not help them
    waiting_tokens: int = 0
    wait_s: float = 0.0  # how long those who were let in lately had waited: the larger half's least
    requests_per_s: float = 0.0
    tokens_per_s: float = 0.0  # of answers
    drain_per_s: float = 0.0  # work done a second while there is a queue; 0 while unknown
    admitted: int = 0
    answered: int = 0  # ended, well or by an error of ours
    failed: int = 0  # ended by an error of ours
    refused: dict[str, int] = {}
    admitted_per_s: float = 0.0  # these three over the last second
    failed_per_s: float = 0.0
    refused_per_s: dict[str, float] = {}
    bucket_level: float = 0.0
    bucket_size: float = 0.0
    sharing: str = ""  # how rates are shared: alone, workers, or with several machines, and why not
    rung: int = 0
    rung_why: str = ""
    memory_mib: float = 0.0
    tenants: tuple[TenantView, ...] = ()
    replicas: tuple[ReplicaView, ...] = ()


class Board(Protocol):
    """One worker's place at the board."""

    def put(self, boot: str, streams: int, tokens: int) -> None:
        """What this worker has in flight on a replica now: answers, and the cache places that they hold."""
        ...

    def others(self, boot: str) -> tuple[int, int]:
        """The same, of all other living workers together."""
        ...

    def tell(self, view: WorkerView) -> None:
        """Publish this worker's view. One that is too long for its place loses tenants and replicas, least busy first."""
        ...

    def told(self) -> list[WorkerView]:
        """The newest views of all living workers, this one's among them."""
        ...


class Rate(Struct, frozen=True):
    """A bucket's rule: `per_s` flows in each second, at most `burst` is kept."""

    per_s: float
    burst: float


class Ledger(Protocol):
    """Accounts of what may be used: rates and quotas. Whoever shares them (workers, machines) shares them through it."""

    def take(self, account: str, amount: float, rule: Rate, now: float) -> float:
        """Take an amount. Returns 0.0 when it was taken, else the seconds until it could be (and takes nothing).

        An amount above the burst can be taken from a full account only, and leaves it below zero.
        """
        ...

    def give(self, account: str, amount: float, rule: Rate, now: float) -> None:
        """Give back what was taken and not used. A negative amount is taken, even where that leaves less than nothing."""
        ...

    def level(self, account: str, rule: Rate, now: float) -> float:
        """What is there now."""
        ...

    @property
    def sharing(self) -> str:
        """With whom the accounts are shared at present, and why not with more: a phrase."""
        ...
