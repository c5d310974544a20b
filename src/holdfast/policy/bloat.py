"""Bloat: a process that outgrows its memory limit leaves in order, before the kernel takes it in the midst of its answers.

At EARLY of the limit it is drained and started anew, one at a time and within the half rule, since nothing has happened yet. Over
the limit itself nobody waits for a better moment: what the kernel does then is worse.
"""

from msgspec import Struct

EARLY = 0.9


class Lean(Struct, frozen=True):
    """Within its limit, or there is none."""


class Bloated(Struct, frozen=True):
    """`over`: beyond the limit itself, and not only close to it."""

    why: str
    over: bool


LEAN = Lean()


def of_process(resident_mib: float | None, limit_mib: float) -> Lean | Bloated:
    """Judge one process. `limit_mib` 0: no limit; `resident_mib` None: nobody knows, and nobody is blamed for that."""
    if limit_mib <= 0 or resident_mib is None or resident_mib < EARLY * limit_mib:
        return LEAN
    return Bloated(
        f"it holds {resident_mib:.0f} MiB of memory, its limit is {limit_mib:g} MiB", resident_mib >= limit_mib
    )
