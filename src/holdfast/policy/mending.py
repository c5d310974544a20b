"""Mending: may an engine whose model has lost its process be mended in place, or must the replica end?

Triton can load a model anew while its server lives, which takes seconds where a restart takes longer. But a mended engine hides
deaths from policy/poison.py, which learns of them by replicas that end: a request that kills model processes would travel from
replica to replica, and be mended after each time. So the first death within AGAIN_S is mended, the next ends the replica as a
crash. A frozen process has not died: freezing is nothing that a request is known to do, and it is mended each time.
"""

from msgspec import Struct

AGAIN_S = 600.0


class Mend(Struct, frozen=True):
    why: str


class End(Struct, frozen=True):
    """`crash` is for the black box: half a sentence that quotes nobody."""

    why: str
    crash: str


class Mending:
    """What has befallen one engine's model so far. `kind` names the engine."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._died_at = float("-inf")

    def judge(self, died: bool, now: float) -> Mend | End:
        """`died`: the model's process is gone; else it is there and does nothing. `now` in the Clock's seconds."""
        if not died:
            return Mend("the model's process stands still: it is ended, and the model loaded anew")
        since_s, self._died_at = now - self._died_at, now
        if since_s > AGAIN_S:
            return Mend("the model's process has died: the model is loaded anew")
        return End(
            f"the model's process has died again, {since_s:.0f} s after it was made anew",
            f"engine {self._kind}: the model's process died twice",
        )
