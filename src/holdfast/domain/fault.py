"""Faults, named as states. Each carries the sentence that the log prints and the client may read."""

from typing import Self

from msgspec import Struct

from holdfast.domain.release import Release


class Limit(Struct, frozen=True):
    """A limit that somebody has met. `name` is a word that is stable for programs; amounts are in `unit`."""

    name: str
    used: float = 0.0
    size: float = 0.0
    unit: str = ""  # requests, tokens, requests/s, tokens/min, bytes, seconds
    frees_s: float = 0.0  # seconds until it is expected to have room again; not jittered


class Fault(Exception):
    """A state that stops one generation, or one attempt at it. `why` is one sentence."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why
        self.replica = (
            ""  # the boot whose state it is, its replica's name, what runs there; the layer that dialled says so
        )
        self.name = ""
        self.release: Release | None = None
        self.said = ""  # of `why`: the words of a program of somebody else, which may quote a prompt

    def saying(self, said: str) -> Self:
        """This fault, with what of its sentence somebody else has said."""
        self.said = said
        return self

    @property
    def discreet(self) -> str:
        """The sentence as events and logs may have it."""
        return self.why.replace(self.said, "...") if self.said else self.why


class EngineRefused(Fault):
    """The replica took no work from this attempt (full, draining, not ready): trying another one costs nothing."""


class EngineLost(Fault):
    """The replica began and can't be believed any more: connection gone, in-stream error, end without a finish, silence.

    `died` tells that the whole replica is gone and not this attempt alone; `crash` is what it left in its black box, empty
    when it was ended from outside. `planned`: nothing is wrong, the answer is asked to move (drain, upgrade, scale-in).
    """

    def __init__(self, why: str, died: bool = False, crash: str = "", planned: bool = False) -> None:
        super().__init__(why)
        self.died = died
        self.crash = crash
        self.planned = planned
        self.unrepeatable = False  # the replica is well: this answer does not come out there as it was delivered
        self.fenced = False  # a watcher has given up on the attempt: nothing came from the replica
        self.silent_s = (
            0.0  # how long the replica had not been heard; the layer that dialled writes this and the next two
        )
        self.age_s = 0.0  # of the attempt
        self.queued = 0  # attempts that waited for a slot inside the replica when it was last asked


class NoReplica(Fault):
    """No replica may take the generation at present."""


class BadRequest(Fault):
    """The request itself is wrong: `param` names the field. Never retried."""

    def __init__(self, why: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(why)
        self.param = param
        self.code = code


class Unauthorised(Fault):
    """The key is missing or unknown."""


class Forbidden(Fault):
    """The key is known, and does not open this."""


class Overloaded(Fault):
    """Refused before any replica was touched. `status` is 429 (the caller's own limit) or 503 (all of us are full).

    `limit` tells which limit it was, how much of it was used, and when it frees.
    """

    def __init__(self, why: str, retry_after_s: float, status: int = 503, limit: "Limit | None" = None) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s
        self.status = status
        self.limit = limit or Limit("capacity")


class Poisonous(Fault):
    """This request was in flight, as the only suspect, when two engines died. Its like is refused until `until_unix_s`."""

    def __init__(self, why: str, fingerprint: str, until_unix_s: float) -> None:
        super().__init__(why)
        self.fingerprint = fingerprint
        self.until_unix_s = until_unix_s


class Fenced(Fault):
    """Another worker has taken this answer over: whatever this one still makes of it goes nowhere."""


class Expired(Fault):
    """The request's deadline passed before its answer was complete."""
