"""Who sits in which slot of the cache, and what each slot still holds.

A slot keeps its tokens when its answer ends, until another answer needs the place. A new answer takes the free slot that
shares the longest beginning with it, or copies one from any other slot: a second turn of a conversation and an answer that
comes back after a failover read only what is new. Latents don't depend on how they were computed (see Steadiness), so a
reused beginning changes no token.
"""

from bisect import bisect_left

_WORTH_TOKENS = 16  # a shorter shared beginning is not worth the loss of an older slot's content


def shared_tokens(one: list[int], other: list[int]) -> int:
    """How many tokens both begin with."""
    most = min(len(one), len(other))
    if one[:most] == other[:most]:
        return most
    return bisect_left(range(1, most + 1), True, key=lambda n: one[:n] != other[:n])


class Slots:
    """Bookkeeping only: whoever calls moves the latents."""

    def __init__(self, count: int) -> None:
        self._held: list[list[int]] = [[] for _ in range(count)]
        self._left: list[int] = [0] * count
        self._free = set(range(count))
        self._turn = 0

    @property
    def free(self) -> int:
        """How many answers could begin now."""
        return len(self._free)

    def take(self, ids: list[int]) -> tuple[int, int, int]:
        """A free slot for an answer that begins with `ids`: (slot, source, tokens). Where source differs from slot, its first
        `tokens` are to be copied. At least the last token is always left to compute. There must be a free slot."""
        wanted = ids[:-1]
        matches = [shared_tokens(wanted, held) for held in self._held]
        oldest = min(self._free, key=lambda n: (self._left[n], n))
        nearest = max(self._free, key=lambda n: (matches[n], -n))
        source = max(range(len(matches)), key=lambda n: (matches[n], n in self._free, -n))
        if matches[nearest] >= _WORTH_TOKENS and matches[nearest] + _WORTH_TOKENS > matches[source]:
            slot = source = nearest
        elif matches[source] >= _WORTH_TOKENS:
            slot = nearest if matches[nearest] >= _WORTH_TOKENS else oldest
        else:
            slot = source = oldest
        tokens = matches[source]
        self._free.discard(slot)
        self._held[slot] = wanted[:tokens]
        return slot, source, tokens

    def hold(self, slot: int, tokens: list[int]) -> None:
        """The slot's latents now go on with these tokens."""
        self._held[slot].extend(tokens)

    def leave(self, slot: int, *, spoilt: bool = False) -> None:
        """The answer ended. What it held stays on offer, unless it is spoilt."""
        if spoilt:
            self._held[slot] = []
        self._turn += 1
        self._left[slot] = self._turn
        self._free.add(slot)
