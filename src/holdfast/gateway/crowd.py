"""The crowd at the door: how many connections each address and each key holds, and how well each of them reads.

One address or one key can't take all the connections that there are, and who leaves an answer lying is not waited for long.
"""

from dataclasses import dataclass

from holdfast.gateway.needs import Limits
from holdfast.gateway.refusals import Refusal, refusal


class Crowd:
    """Counts connections by who holds them: an address (text) or what was sent as a key (bytes)."""

    def __init__(self) -> None:
        self._held: dict[str | bytes, int] = {}

    def __len__(self) -> int:
        return len(self._held)

    def add(self, who: str | bytes) -> int:
        """One more; returns how many that makes. Nobody in particular is not counted."""
        if not who:
            return 0
        count = self._held[who] = self._held.get(who, 0) + 1
        return count

    def complaint(self, address: str, connections: int, crowded: str, limits: Limits) -> Refusal | None:
        """One more comes from there, and so many are open with it: why it is one too many, if it is."""
        count, most = self.add(address), limits.connections_per_address_max
        if crowded:
            return refusal(503, crowded, "connections", 1.0)
        if connections > limits.connections_max:
            return refusal(503, "Too many connections are open; retry shortly.", "connections", 1.0)
        if count > most > 0:
            why = f"Your address holds {most} connections, as many as it may; use those."
            return refusal(429, why, "connections_per_address", 1.0)
        return None

    def claim(self, was: bytes, key: bytes, limits: Limits) -> Refusal | None:
        """A connection passes from one key to another: why that holds too many, if it does."""
        most = limits.connections_per_key_max
        self.drop(was)
        if self.add(key) <= most or not most:
            return None
        why = f"Your API key is in use on {most} connections, as many as it may; use those."
        return refusal(429, why, "connections_per_key", 1.0)

    def drop(self, who: str | bytes) -> None:
        """One less."""
        count = self._held.get(who, 0)
        if count > 1:
            self._held[who] = count - 1
        elif count:
            del self._held[who]


@dataclass(slots=True)  # and no Struct: written with every token
class Taking:
    """How a client takes what is written to it: since when it has been slower than it may, and what it had taken then."""

    written_bytes: int = 0
    _since_s: float | None = None
    _taken_bytes: int = 0

    def stalls(self, unread_bytes: int, now: float, limits: Limits) -> bool:
        """Whether it has been too slow for too long. Who has nothing to read is never slow."""
        if not unread_bytes:
            self._since_s = None
            return False
        taken = self.written_bytes - unread_bytes
        since = self._since_s
        gained = taken - self._taken_bytes
        if since is None or (gained > 0 and gained >= limits.bytes_per_s_min * (now - since)):
            self._since_s, self._taken_bytes = now, taken
            return False
        return now - since > limits.stall_s
