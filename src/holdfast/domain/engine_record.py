"""What a replica writes down of the engine program that it started, so that whoever comes after it can end what is left of it."""

from msgspec import Struct


class EngineRecord(Struct, frozen=True, kw_only=True):
    """One engine process. `pid` 0: it was about to be started, and may run; only the token can find it then.

    `pid` is the first process, and the number of its session. `members` are all processes that were seen in it, each with its
    start time in ticks: they prove that a session is the one meant after its first process has died. `machine` is the boot of
    the machine in which these numbers mean something. `shared` are files that were seen mapped from shared memory by them, each
    by its number there and its name: they stay when all who could remove them are killed.
    """

    kind: str
    token: str
    pid: int = 0
    start_ticks: int = 0
    members: tuple[tuple[int, int], ...] = ()
    shared: tuple[tuple[int, str], ...] = ()
    machine: str = ""
