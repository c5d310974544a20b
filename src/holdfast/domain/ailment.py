"""Ailments: what is wrong with a replica that runs and answers. fleet/evidence.py finds them, policy/supervision.py acts.

Death and silence are no ailments; supervision sees those by itself. What is here needs a history to be seen: counters that
stand still, steps slower than those of its peers, a canary that came back wrong, memory that only grows.
"""

from enum import StrEnum

from msgspec import Struct


class Cure(StrEnum):
    """What an ailment calls for. Streams are moved first in every case but KILL, where nothing moves any more."""

    KILL = "kill"  # it makes no progress: end it at once, start another
    RENEW = "renew"  # drain it, stop it, start another
    CONDEMN = "condemn"  # drain it, stop it, keep it stopped until somebody has looked


class Ailment(Struct, frozen=True, kw_only=True):
    """One finding. `kind` is a word (wedged, slow, wrong, bloated); `on_suspicion` findings obey the half rule
    (policy/ejection.py); certain ones do not."""

    kind: str
    cure: Cure
    why: str
    since: float
    on_suspicion: bool = True
