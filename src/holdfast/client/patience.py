"""How long a client goes on trying."""

from msgspec import Struct


class Patience(Struct, frozen=True, kw_only=True):
    """What a resuming client puts up with before its caller hears of it. All in seconds.

    `patience_s`: lost, refused and reset connections in a row, counted from the first; any event that arrives starts the
    count anew. `stall_s`: without a byte for so long the connection is given up and the answer asked for again, which costs
    nothing; each further stall in a row is allowed twice as long, so that an answer which takes its time is not asked for
    over and over where nobody keeps it. How long to wait at all stays the caller's own read timeout.
    `wait_first_s`, `wait_max_s`: the pause before the second attempt after a loss, and its limit; it doubles in between.
    """

    patience_s: float = 30.0
    stall_s: float = 15.0
    wait_first_s: float = 0.005
    wait_max_s: float = 0.5


PATIENT = Patience()
