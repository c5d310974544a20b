"""The lane: how many moved answers may be read again by one replica at the same time, and in which order they go.

When a replica dies, all its answers arrive elsewhere at once, each with its whole prompt to read again. Read all together
they would stall those who were already there, look like silence, and be moved on: the second disaster. So each replica reads
at most `tokens_max` tokens of moved answers at a time. Who has to wait goes shortest first within a wave, which frees most
answers soonest; waves keep their order, so that a long answer is passed over by its own wave only, never by later ones.
"""

from dataclasses import dataclass, field
from typing import NamedTuple

WAVE_S = 1.0  # a wave: the first who has to wait, and all who come within so many seconds


class _Waiting(NamedTuple):
    wave: float  # when it began
    tokens: int
    number: int


@dataclass
class Lane:
    """Permits of one worker. A permit is held from the pick until the first new token, or until the attempt ends."""

    tokens_max: int = 16384
    reading: dict[str, dict[str, int]] = field(default_factory=dict)  # replica -> generation -> tokens
    waiting: dict[str, _Waiting] = field(default_factory=dict)
    _number: int = 0

    @property
    def held(self) -> int:
        """Tokens under permit now, on all replicas; 0 when nothing is moving."""
        return sum(sum(ones.values()) for ones in self.reading.values())

    def complaint(self, replica: str, tokens: int) -> str:
        """Why an answer of so many tokens can't be read again there now; empty if it may. One always may."""
        ones = self.reading.get(replica)
        if not ones:
            return ""
        busy = sum(ones.values())
        if busy + tokens <= self.tokens_max:
            return ""
        return f"{replica} is reading {busy} tokens of moved answers again, {tokens} more are over {self.tokens_max}"

    def begin(self, replica: str, generation: str, tokens: int) -> None:
        """Give a permit; one who waited for it waits no more."""
        self.waiting.pop(generation, None)
        self.reading.setdefault(replica, {})[generation] = tokens

    def end(self, generation: str) -> bool:
        """Take its permit back, if it has one. Returns whether it had."""
        for replica, ones in self.reading.items():
            if ones.pop(generation, None) is not None:
                if not ones:
                    del self.reading[replica]
                return True
        return False

    def join(self, generation: str, tokens: int, now: float) -> None:
        """Take down that it waits. `now` in seconds."""
        last = max((one.wave for one in self.waiting.values()), default=now)
        self._number += 1
        self.waiting[generation] = _Waiting(last if now - last <= WAVE_S else now, tokens, self._number)

    def leave(self, generation: str) -> None:
        """It waits no more."""
        self.waiting.pop(generation, None)

    def queue(self) -> list[str]:
        """Who waits, in the order in which they go."""
        return sorted(self.waiting, key=self.waiting.__getitem__)
