"""Throttle: a client that hammers is refused part of its requests at the door, before they cost anything else.

The formula is that of Site Reliability Engineering, "Handling Overload": refused with probability
max(0, (requests - K * accepts) / (requests + 1)), counted per client over a window. A client of whose requests more than one
in K is let in never notices; one that sends ten times what it gets is brought down to K times that. Requests count when they
come and accepts when they are let in, not when they end: counted at the end, every slow answer looks like a refusal.

Four things are ours. Small clients are never throttled: below a request a second the share says nothing. A single request that
was not let in says nothing either: it is younger than those that were, which have faded more. Some of the requests always
pass, so that what is refused can be found out to be welcome. And the window passes quickly while nobody waits: whom we have
room for we don't refuse for yesterday's sake, and after an overload the formula alone would take minutes to forgive.
Counts fade exponentially, with half the window as time constant, which gives them the mean age of a window.
"""

from dataclasses import dataclass, field
from math import exp

from msgspec import Struct

KEYS_MAX = 10_000  # clients whose counts are kept; the one that was silent for longest is forgotten
SMALL_PER_S = 1.0
SINGLE = 1.001  # requests above K * accepts that may be one request, and the last digit of a float
REFUSED_MAX = 0.95  # of a client's requests
FORGIVEN_S = 2.0  # the window passes in so many seconds while nobody waits


class Throttled(Struct, frozen=True):
    """Refused. Amounts are what counts in the window now."""

    why: str
    requests: float
    accepts: float
    share: float


class _Client:
    __slots__ = ("accepts", "at_s", "requests")

    def __init__(self, at_s: float) -> None:
        self.requests = 0.0
        self.accepts = 0.0
        self.at_s = at_s


@dataclass
class Throttle:
    """`factor` is K, `window_s` the window in seconds. Until it is told that somebody waits, nobody is refused for long."""

    factor: float = 2.0
    window_s: float = 120.0
    _clients: dict[str, _Client] = field(default_factory=dict)  # the longest silent stands first
    _waits: bool = False
    _told_at: float = 0.0
    _passed_s: float = 0.0  # time in the window, which is not the Clock's

    @property
    def keys(self) -> int:
        """Clients that are remembered."""
        return len(self._clients)

    def pressed(self, waits: bool, now: float) -> None:
        """Whether somebody waits now; to be told whenever that changes, and more often does no harm."""
        self._pass(now)
        self._waits = waits

    def asked(self, key: str, now: float, draw: float) -> Throttled | None:
        """A request came; `draw` is an even chance in [0, 1). None: it may go on."""
        self._pass(now)
        client = self._clients.pop(key, None)
        if client is None:
            client = _Client(self._passed_s)
            if len(self._clients) >= KEYS_MAX:
                del self._clients[next(iter(self._clients))]
        self._clients[key] = client
        self._fade(client)
        surplus = client.requests - self.factor * client.accepts
        client.requests += 1.0
        if surplus <= SINGLE or client.requests <= SMALL_PER_S * self.window_s / 2:
            return None
        share = min(REFUSED_MAX, surplus / client.requests)
        if draw >= share:
            return None
        why = (
            f"this client sent {client.requests:.0f} requests lately and {client.accepts:.0f} were let in: "
            f"{share:.0%} of its requests are refused until it sends fewer than {self.factor:g} times that"
        )
        return Throttled(why, client.requests, client.accepts, share)

    def accepted(self, key: str, now: float) -> None:
        """One of its requests was let in."""
        client = self._clients.get(key)
        if client is not None:
            self._pass(now)
            self._fade(client)
            client.accepts += 1.0

    def _pass(self, now: float) -> None:
        if now > self._told_at:
            self._passed_s += (now - self._told_at) * (1.0 if self._waits else max(1.0, self.window_s / FORGIVEN_S))
            self._told_at = now

    def _fade(self, client: _Client) -> None:
        age_s = self._passed_s - client.at_s
        if age_s > 0:
            kept = exp(-2.0 * age_s / self.window_s)
            client.requests *= kept
            client.accepts *= kept
            client.at_s = self._passed_s
