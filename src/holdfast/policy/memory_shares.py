"""Memory as a budget: how much of the replicas' slots and cache places each tenant holds, may hold, and is kept free for it.

A replica's memory is what tenants really fight over: a slot, and one cache place for every token of prompt and answer. Shares
are of all replicas together. A guaranteed share that its tenant does not use is kept free, also from tenants with a higher
priority; a largest share holds even while everything else is idle. Both are counted in slots and in places, whichever binds.

Exact in one worker. What other workers hold is told ten times a second, so two workers may together exceed a share by what
both let in within a tenth of a second.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from holdfast.domain.tenant import Limits

# why a tenant may not have more now; these begin as policy/fair_queue.py wants it: others may go meanwhile
OWN_CONCURRENCY = "own: its concurrency is used up"
OWN_MEMORY = "own: it holds its largest share of memory"
KEPT = "own: the rest of the memory is kept for reserved tenants"


@dataclass(slots=True)  # and no Struct: written often
class Held:
    """What one tenant holds: answers, and cache places; here, and as other workers last told."""

    slots: int = 0
    tokens: int = 0
    slots_elsewhere: int = 0
    tokens_elsewhere: int = 0


class Shares:
    """Who holds how much. `tenants` are all whose guaranteed share matters; the others are known once they hold something."""

    def __init__(self, tenants: Iterable[Limits] = ()) -> None:
        self._held: dict[str, Held] = {}
        self._reserved = tuple(one for one in tenants if one.memory_min > 0)
        self._elsewhere = (0, 0)

    def of(self, tenant: str) -> Held:
        """What it holds. The number of tenants is bounded by the settings."""
        held = self._held.get(tenant)
        if held is None:
            held = self._held[tenant] = Held()
        return held

    def take(self, tenant: str, tokens: int) -> None:
        """One more answer of so many places."""
        held = self.of(tenant)
        held.slots += 1
        held.tokens += tokens

    def grow(self, tenant: str, tokens: int) -> None:
        """An answer needs so many places more than was thought."""
        self.of(tenant).tokens += tokens

    def give(self, tenant: str, tokens: int) -> None:
        """An answer has ended."""
        held = self.of(tenant)
        held.slots -= 1
        held.tokens -= tokens

    def elsewhere(self, told: dict[str, tuple[int, int]]) -> None:
        """What all other workers together hold, by tenant: (answers, places)."""
        for tenant, held in self._held.items():
            if tenant not in told:
                held.slots_elsewhere = held.tokens_elsewhere = 0
        for tenant, (slots, tokens) in told.items():
            held = self.of(tenant)
            held.slots_elsewhere, held.tokens_elsewhere = slots, tokens
        self._elsewhere = sum(slots for slots, _ in told.values()), sum(tokens for _, tokens in told.values())

    def bind(self, limits: Limits) -> bool:
        """Whether anything is to be asked at all."""
        return bool(self._reserved) or limits.concurrency > 0 or limits.memory_max < 1

    def fits(self, limits: Limits, tokens: int, total: tuple[int, int], used: tuple[int, int]) -> str:
        """Whether a tenant may have one more answer of so many places: empty, or why not.

        `total` are all replicas' (slots, places), `used` what this worker holds of them; total places 0: they don't count.
        Who holds nothing may always have one answer, however large: else it could never be served.
        """
        held = self.of(limits.tenant)
        slots, places = held.slots + held.slots_elsewhere, held.tokens + held.tokens_elsewhere
        if limits.concurrency and slots >= limits.concurrency:
            return OWN_CONCURRENCY
        if limits.memory_max < 1 and slots:
            slots_max, places_max = limits.memory_max * total[0], limits.memory_max * total[1]
            if slots + 1 > slots_max or (places_max and places + tokens > places_max):
                return OWN_MEMORY
        return self._kept(limits, tokens, total, used) if self._reserved else ""

    def _kept(self, limits: Limits, tokens: int, total: tuple[int, int], used: tuple[int, int]) -> str:
        """Whether what is free is kept for others. A tenant within its own guaranteed share takes what was kept for it."""
        slots_kept = tokens_kept = 0
        for one in self._reserved:
            held = self.of(one.tenant)
            slots_lacking = ceil(one.memory_min * total[0]) - held.slots - held.slots_elsewhere
            tokens_lacking = ceil(one.memory_min * total[1]) - held.tokens - held.tokens_elsewhere
            if one.tenant == limits.tenant:
                if slots_lacking >= 1 and (not total[1] or tokens_lacking >= tokens):
                    return ""
            else:
                slots_kept += max(0, slots_lacking)
                tokens_kept += max(0, tokens_lacking)
        slots = used[0] + self._elsewhere[0] + 1 + slots_kept
        places = used[1] + self._elsewhere[1] + tokens + tokens_kept
        return KEPT if slots > total[0] or (total[1] and places > total[1]) else ""
