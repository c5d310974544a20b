"""How a step's rows are laid out: which answers share one attention product, and how many prompt tokens each may read."""

from collections.abc import Sequence

# One more attention product costs about as much as reading an eighth of the places that stay near (measured on a CPU, where
# 512 stay near: 6 us a product against 0.18 us a place).
_CALL_SHARE = 8


def runs(slots: Sequence[int], lengths: Sequence[int], near_places: int) -> list[tuple[int, int]]:
    """Cut slots (ascending) into stretches [first slot, last slot] that are attended to in one product, idle slots between
    them included, where the places read in vain cost less than another product and the product stays within
    `near_places`. `lengths` are the places that each slot must read."""
    found: list[tuple[int, int]] = []
    first = last = longest = -1
    for slot, length in zip(slots, lengths, strict=True):
        if found:
            grown = max(longest, length)
            vain = (grown - longest) * (last - first + 1) + (grown - length) + (slot - last - 1) * grown
            if vain <= near_places // _CALL_SHARE and (slot - first + 1) * grown <= near_places:
                last, longest = slot, grown
                found[-1] = (first, last)
                continue
        first = last = slot
        longest = length
        found.append((first, last))
    return found


def shares(unread: Sequence[int], budget: int) -> list[int]:
    """Divide a step's prompt tokens among prompts, given oldest first: the oldest gets at least a quarter, so that it ends,
    and the rest goes to the shortest first, so that a long prompt doesn't hold up short ones."""
    given = [0] * len(unread)
    if not unread:
        return given
    given[0] = min(unread[0], max(1, budget // 4))
    left = budget - given[0]
    for n in sorted(range(len(unread)), key=lambda n: (unread[n], n)):
        more = min(unread[n] - given[n], left)
        given[n] += more
        left -= more
    return given
