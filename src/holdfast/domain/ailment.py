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


class Exhibit(Struct, frozen=True, kw_only=True):
    """What proves a finding, kept for whoever looks into it. `at` is unix seconds; the ids are a canary's, never a user's."""

    replica: str
    boot: str
    kind: str
    why: str
    at: float
    release: str  # digest
    prompt_ids: tuple[int, ...] = ()
    expected: tuple[int, ...] = ()
    got: tuple[int, ...] = ()
