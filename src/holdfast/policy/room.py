"""Room: what each replica can hold, and what it holds. Nobody is ever given more.

A replica holds so many answers at once (slots) and so many tokens (places in its cache; 0 where only slots count). An answer's
hold is its prompt and what it is expected to become; a hold that proves too small grows, since an answer under way is never
stopped for it. What has been let in and has no replica yet (a grant: it is about to be picked, or its replica was lost) counts
against the whole, so that nobody is let in whose place is promised to somebody else.

Several workers share the replicas. `others` says what all other workers hold on one now, `changed` tells them what this one
holds. A place is taken by telling first and looking afterwards: of two workers that reach for the last one, at least one sees
the other and steps back. `fits` may be wrong by what others did since they were last looked at; `take` never is.

Each call costs the same however many replicas there are, but for the search for one with tokens enough; what that search has
found is remembered until somebody frees something.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from msgspec import Struct

Others = Callable[[str], tuple[int, int]]
Changed = Callable[[str, int, int], None]


def _nobody(boot: str) -> tuple[int, int]:
    return 0, 0


def _untold(boot: str, streams: int, tokens: int) -> None:
    return


@dataclass(slots=True)  # and no Struct: written often
class Place:
    """One replica. `free` slots and `spare` tokens are what is left, as of the last change or look. One that does not serve may
    still be given an answer in need; it counts nowhere else."""

    boot: str
    slots: int = 0
    tokens_max: int = 0
    streams: int = 0  # this worker's
    tokens: int = 0
    work: int = 0
    other_streams: int = 0
    other_tokens: int = 0
    serving: bool = False
    free: int = 0
    spare: float = 0.0
    at: int = -1  # its index among the open ones


class Hold(Struct):
    place: Place
    tokens: int
    work: int


class Grant(Struct):
    tokens: int
    times: int = 1  # an answer that this worker takes over from itself is let in twice for a moment


class Room:
    """One worker's book. Keys are names of answers; amounts in slots and tokens."""

    def __init__(self, others: Others = _nobody, changed: Changed = _untold) -> None:
        self.others, self.changed = others, changed
        # these five are to be read only
        self.open: list[Place] = []  # those that serve and have a free slot, in no order
        self.places: dict[str, Place] = {}  # by boot
        self.held: dict[str, Hold] = {}  # by key
        self.grants: dict[str, Grant] = {}  # by key
        self.free = 0  # slots, as of the last look at others
        self._promised = self._promised_tokens = 0  # grants without a hold
        self._serving = self._slots = self._tokens_max = self._streams = self._tokens = self._others_tokens = 0
        self._most_spare = inf  # no open replica has more than this, as far as anybody has looked
        self._roomy: Place | None = None  # where the last search ended

    # who can hold what

    def see(self, boot: str, slots: int, tokens_max: int = 0, serving: bool = True) -> None:
        """A replica that may take work (without `serving` only in need), and what it can hold. To be called some ten times a
        second, for others' sake too."""
        place = self.places.get(boot)
        if place is None:
            place = self.places[boot] = Place(boot)
        if place.slots != slots or place.tokens_max != tokens_max or place.serving != serving:
            self._change(place, slots, tokens_max, serving)
        self._look(place)

    def gone(self, boot: str) -> None:
        """It may take no work now: it is lost, silent, or leaving. What it still does for us stays in the book."""
        place = self.places.get(boot)
        if place is None:
            return
        self._change(place, 0, 0, False)
        if not place.streams:
            del self.places[boot]
            self.changed(boot, 0, 0)

    # promises

    def grant(self, key: str, tokens: int) -> None:
        """An answer was let in: a slot and so many tokens are promised to it until `ungrant`, wherever it goes."""
        had = self.grants.get(key)
        if had is not None:
            had.times += 1
            return
        self.grants[key] = Grant(tokens)
        if key not in self.held:
            self._promised += 1
            self._promised_tokens += tokens

    def ungrant(self, key: str) -> None:
        """It has ended. Unknown keys are ignored."""
        had = self.grants.get(key)
        if had is None:
            return
        had.times -= 1
        if had.times == 0:
            del self.grants[key]
            if key not in self.held:
                self._promised -= 1
                self._promised_tokens -= had.tokens

    def fits(self, tokens: int) -> str:
        """Why nothing of so many tokens can be let in now; empty if it can."""
        if self.free <= self._promised:
            return self._full()
        place = self._roomy
        if (
            place is not None
            and place.at >= 0
            and tokens + self._promised_tokens <= place.spare
            and not (self._look(place) and self._complaint(place, tokens))
        ):
            return ""
        if tokens > self._most_spare:
            return f"no replica has {tokens} tokens of its cache free, the most is {self._most_spare:.0f}"
        return self._search(tokens)

    # holds

    def has_room(self, boot: str, tokens: int) -> str:
        """Why this replica can't hold so many tokens more now; empty if it can. One that holds nothing takes anything."""
        place = self.places.get(boot)
        if place is None or not place.slots:
            return "it takes no work now"
        return self._complaint(place, tokens)

    def take(self, boot: str, key: str, tokens: int, work: int = 0) -> str:
        """Hold a slot and so many tokens there. Returns why not, or nothing. `work`: tokens that it is about to cost.

        Raises:
            KeyError: this key holds a place already.
        """
        if key in self.held:
            raise KeyError(key)
        place = self.places.get(boot)
        if place is None or not place.slots:
            return "it takes no work now"
        self._look(place)
        if place.free <= 0 or tokens > place.spare:
            return self._complaint(place, tokens)
        self._add(place, 1, tokens, work)
        if self._look(place) and self._over(place):
            self._add(place, -1, -tokens, -work)
            return f"another worker took the last room of {boot}"
        self.held[key] = Hold(place, tokens, work)
        grant = self.grants.get(key)
        if grant is not None:
            self._promised -= 1
            self._promised_tokens -= grant.tokens
        return ""

    def grow(self, key: str, tokens: int) -> None:
        """Its hold is so many tokens from now on: more, or fewer. Never refused; unknown keys are ignored."""
        grant, hold = self.grants.get(key), self.held.get(key)
        if grant is not None:
            if hold is None:
                self._promised_tokens += tokens - grant.tokens
            grant.tokens = tokens
        if hold is not None:
            more, hold.tokens = tokens - hold.tokens, tokens
            hold.work += 2 * more
            self._add(hold.place, 0, more, 2 * more)

    def give(self, key: str) -> None:
        """Its attempt has ended; a grant that it has stands. Unknown keys are ignored."""
        hold = self.held.pop(key, None)
        if hold is None:
            return
        place = hold.place
        self._add(place, -1, -hold.tokens, -hold.work)
        if not place.streams and not place.slots and self.places.get(place.boot) is place:
            del self.places[place.boot]
        grant = self.grants.get(key)
        if grant is not None:
            self._promised += 1
            self._promised_tokens += grant.tokens

    # figures

    def total(self) -> tuple[int, int]:
        """Slots and tokens of all that may take work. Replicas that count no tokens count none here."""
        return self._slots, self._tokens_max

    def used(self) -> tuple[int, int]:
        """Slots and tokens that this worker holds there, or has promised."""
        return self._streams + self._promised, self._tokens + self._promised_tokens

    def left(self) -> tuple[int, int]:
        """Slots and tokens of all that may take work which nobody holds, and which are promised to nobody here."""
        held = self._tokens + self._others_tokens + self._promised_tokens
        return self.free - self._promised, max(0, self._tokens_max - held)

    # inside

    def _change(self, place: Place, slots: int, tokens_max: int, serving: bool) -> None:
        if place.serving:
            self._count(place, -1)
            self._close(place)
        place.slots, place.tokens_max, place.serving = slots, tokens_max, serving
        if serving:
            self._count(place, 1)
        self._settle(place)

    def _count(self, place: Place, sign: int) -> None:
        self._serving += sign
        self._slots += sign * place.slots
        self._tokens_max += sign * place.tokens_max
        self._streams += sign * place.streams
        self._tokens += sign * place.tokens
        self._others_tokens += sign * place.other_tokens

    def _add(self, place: Place, streams: int, tokens: int, work: int) -> None:
        place.streams += streams
        place.tokens += tokens
        place.work += work
        if place.serving:
            self._streams += streams
            self._tokens += tokens
        self._settle(place)
        self.changed(place.boot, place.streams, place.tokens)

    def _settle(self, place: Place) -> None:
        """Its free slots and spare tokens anew, and with them whether it is open."""
        streams = place.streams + place.other_streams
        had = place.free
        place.free = free = place.slots - streams if streams < place.slots else 0
        place.spare = place.tokens_max - place.tokens - place.other_tokens if streams and place.tokens_max else inf
        if not place.serving:
            return
        if place.at >= 0:
            self.free += free - had
            if not free:
                self._close(place)
                return
        elif free:
            place.at = len(self.open)
            self.open.append(place)
            self.free += free
        if free and place.spare > self._most_spare:
            self._most_spare = place.spare

    def _close(self, place: Place) -> None:
        """Take it out of the open ones."""
        if place.at < 0:
            return
        self.free -= place.free
        last = self.open.pop()
        if last is not place:
            self.open[place.at] = last
            last.at = place.at
        place.at = -1

    def _look(self, place: Place) -> bool:
        """What other workers hold there now. Returns whether that has changed."""
        streams, tokens = self.others(place.boot)
        if streams == place.other_streams and tokens == place.other_tokens:
            return False
        if place.serving:
            self._others_tokens += tokens - place.other_tokens
        place.other_streams, place.other_tokens = streams, tokens
        self._settle(place)
        return True

    def _over(self, place: Place) -> bool:
        """Whether it has been given more than it can hold."""
        streams = place.streams + place.other_streams
        tokens = place.tokens + place.other_tokens
        return streams > place.slots or (place.tokens_max > 0 and streams > 1 and tokens > place.tokens_max)

    def _complaint(self, place: Place, tokens: int) -> str:
        self._look(place)
        if place.free <= 0:
            return f"all its {place.slots} slots are taken"
        if tokens > place.spare:
            return f"{place.spare:.0f} of its {place.tokens_max} cache tokens are free, {tokens} are wanted"
        return ""

    def _search(self, tokens: int) -> str:
        """An open replica with so many tokens to spare becomes the roomy one; or why there is none."""
        most = 0.0
        for place in self.open:
            if place.spare >= tokens:
                if not self._tight(tokens):
                    self._roomy = place
                    return ""
                break
            most = max(most, place.spare)
        else:
            self._most_spare = most
            return f"no replica has {tokens} tokens of its cache free, the most is {most:.0f}"
        return f"{self._promised_tokens} tokens are promised to {self._promised} answers that have no replica yet"

    def _tight(self, tokens: int) -> bool:
        """Whether promises leave less than so many tokens. Where no tokens are counted there is no such thing."""
        if not self._promised_tokens or self._tokens_max == 0:
            return False
        left = 0.0
        for place in self.open:
            left += place.spare
            if left >= tokens + self._promised_tokens:
                return False
        return True

    def _full(self) -> str:
        if not self._serving:
            return "no replica may take work"
        waiting = f", {self._promised} of them by answers that have no replica yet" if self._promised else ""
        return f"all {self._slots} slots of {self._serving} replicas are taken{waiting}"
