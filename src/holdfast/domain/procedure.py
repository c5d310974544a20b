"""A procedure changes the world step by step, without remembering where it was.

Supervision, and later release, takeover, backup and drill, are all this shape. It is level-triggered: no step number is kept
anywhere. Killed midway and started again, it looks, and `next_step` finds out from the world what remains to be done.
"""

from typing import Protocol, TypeVar

from msgspec import Struct


class Step(Struct, frozen=True, kw_only=True):
    """One act. `why` is the sentence that the log prints and the tests assert."""

    why: str

    def word(self) -> str:
        """The step's name as the log says it: Start is "start"."""
        return type(self).__name__.lower()


class Wait(Struct, frozen=True):
    """Nothing to do before `until` (the Clock's seconds), unless something happens."""

    until: float
    why: str


class Done(Struct, frozen=True):
    """Nothing will ever be left to do. `ok` tells whether the world is as it was wanted."""

    why: str
    ok: bool = True


Seen = TypeVar("Seen")


class Procedure(Protocol[Seen]):
    """Something that loop.run can run."""

    async def look(self) -> Seen:
        """Read the world afresh."""
        ...

    def next_step(self, seen: Seen, now: float) -> Step | Wait | Done:
        """Decide. Pure: a function from policy/."""
        ...

    async def act(self, step: Step) -> None:
        """Do it. Idempotent: it may be done again after a crash. Raises OSError or a Fault when the world refuses."""
        ...
