"""The ladder: what is given up, rung by rung, while the site is asked for more than it has or fails too often, and given back.

    rung  name                 what is given up                                    taken when            given back when
    1     shorter answers      answers beyond [degradation] max_tokens             hot                   calm
    2     less thinking        reasoning beyond [degradation] thinking_tokens      hot                   calm
    3     sheddable refused    requests of a priority below 0                      hot                   calm
    4     smaller model        the model's size, as far as the smaller has room    hot, and it serves    calm
    5     reserved only        everybody without a reservation                     reserved ones suffer  calm

Hot: more than errors_share of the answers end in an error of ours (over the window, and over its last quarter too); or those
who are let in wait longer than half of first_token_s; or most tenants are refused for want of room. Calm: less than half of
errors_share, less than half of that wait, nobody to speak of refused, and after overload also room to spare (ROOM_TO_SPARE):
what a rung has saved would be asked for again at once. Between hot and calm everything stays as it is.

One rung at a time: up after step_s of heat, down after calm_s of calm. Only the first rung is taken at once for errors, since
they prove themselves over a whole window. Relief ends the pressure that a rung was taken for, so giving back is a trial; one that
fails within RELAPSES calm times doubles the calm that the first one down needs next time, up to RELAPSES-fold, until no rung
was taken for FORGIVEN calm times. However the pressure is made, upward turns in T seconds are therefore at most a handful and
one for each RELAPSES * calm_s.
"""

from collections.abc import Callable

from msgspec import Struct

from holdfast.policy.pressure import HIGH, LOW, Pressure

MOST = 0.5  # of the tenants
ROOM_TO_SPARE = 0.8  # of slots and cache may be in use where load is to be let in again
RELAPSES = 8
FORGIVEN = 40
TOP = 5


class Rules(Struct, frozen=True, kw_only=True):
    """The [degradation] section's numbers; wait_s is the wait from which on it is hot."""

    errors_share: float = 0.05
    volume_min: int = 20
    wait_s: float = 1.0
    step_s: float = 2.0
    calm_s: float = 5.0


class Rung(Struct, frozen=True):
    """One rung. `entry` says why it should be taken, `hold` why it can't be given back yet; empty: no reason."""

    name: str
    gives_up: str
    entry: Callable[[Pressure, Rules], str]
    hold: Callable[[Pressure, Rules], str]


class Stay(Struct, frozen=True):
    rung: int
    why: str


class Step(Struct, frozen=True):
    """Take a rung (after > before) or give one back."""

    before: int
    after: int
    name: str
    why: str


def failing(pressure: Pressure, rules: Rules, limit: float) -> str:
    """Whether more answers than this share end in an error of ours, and still do."""
    errors, now = pressure.errors, pressure.errors_now
    if errors.answers < rules.volume_min or errors.share <= limit or now.share <= limit:
        return ""
    return (
        f"{errors.share:.2%} of the last {errors.answers} answers ended in an error of ours, the limit is {limit:.1%}"
    )


def overrun(pressure: Pressure, rules: Rules) -> str:
    """Whether there is more to do than can be done."""
    if pressure.wait_s > rules.wait_s:
        return f"requests wait {pressure.wait_s:.2f} s for a place, the limit is {rules.wait_s:.2f} s"
    if pressure.refused_high > MOST and pressure.use > ROOM_TO_SPARE:  # else it is their deadlines that are too short
        share = f"{pressure.refused_high:.0%} of those who ask"
        return f"{share} have more than {HIGH:.0%} of their requests refused for want of room"
    if pressure.owed and not pressure.slots:
        return f"no replica may serve and answers are owed: {pressure.owed}"
    return ""


def hot(pressure: Pressure, rules: Rules) -> str:
    """Why another rung should be taken."""
    return failing(pressure, rules, rules.errors_share) or overrun(pressure, rules)


def uneasy(pressure: Pressure, rules: Rules) -> str:
    """Why nothing should be given back. Half of each limit, so that what is on the edge stays where it is."""
    errors, limit = pressure.errors, rules.errors_share / 2
    if errors.answers >= rules.volume_min and errors.share > limit:
        return f"{errors.share:.2%} of the last {errors.answers} answers ended in an error of ours, calm is {limit:.1%}"
    if pressure.wait_s > rules.wait_s / 2:
        return f"requests wait {pressure.wait_s:.2f} s for a place, calm is {rules.wait_s / 2:.2f} s"
    if pressure.refused_low > MOST and pressure.use > ROOM_TO_SPARE:
        share = f"{pressure.refused_low:.0%} of those who ask"
        return f"{share} have more than {LOW:.0%} of their requests refused for want of room"
    return overrun(pressure, rules)


def reserved_suffer(pressure: Pressure, rules: Rules) -> str:
    """Why everybody else has to go: even those for whom room is kept do not get it."""
    if pressure.reserved_refused <= HIGH:
        return ""
    return f"{pressure.reserved_refused:.1%} of the requests of tenants with a reservation are refused for want of room"


RUNGS = (
    Rung("full service", "nothing is given up", lambda pressure, rules: "", lambda pressure, rules: ""),
    Rung("shorter answers", "answers are cut to a length", hot, uneasy),
    Rung("less thinking", "reasoning is cut to a length", hot, uneasy),
    Rung("sheddable refused", "requests of a priority below 0 are refused", hot, uneasy),
    Rung("smaller model", "a smaller model answers as far as it has room", hot, uneasy),
    Rung("reserved only", "only tenants with a reservation are served", reserved_suffer, uneasy),
)


class Ladder:
    """Where the site stands. `without`: rungs that would give up something for nothing, and are left out."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.rung = 0
        self.why = "full service"
        self._hot_since: float | None = None
        self._calm_since: float | None = None
        self._taken_at = self._given_at = float("-inf")
        self._patience = 1  # how many calm times the highest rung is kept
        self._overrun = False  # the rungs that are taken were taken for too much work, too

    def look(self, pressure: Pressure, now: float, without: frozenset[int] = frozenset()) -> Stay | Step:
        """The verdict of this moment; a Step has been taken when it is returned."""
        rules = self.rules
        above = next((rung for rung in range(self.rung + 1, TOP + 1) if rung not in without), None)
        heat = RUNGS[above].entry(pressure, rules) if above is not None else ""
        self._overrun = bool(self.rung) and (self._overrun or bool(overrun(pressure, rules)))
        if heat and above is not None:
            self._calm_since = None
            if self._hot_since is None:
                self._hot_since = now
            at_once = self.rung == 0 and bool(failing(pressure, rules, rules.errors_share))
            if at_once or now - self._hot_since >= rules.step_s:
                return self._take(above, heat, bool(overrun(pressure, rules)), now)
            return Stay(self.rung, self.why)
        self._hot_since = None
        if not self.rung:
            return Stay(0, self.why)
        kept = RUNGS[self.rung].hold(pressure, rules) or self._full(pressure)
        if kept:
            self._calm_since = None
            return Stay(self.rung, self.why)
        if self._calm_since is None:
            self._calm_since = now
        on_trial = self._patience if self._taken_at > self._given_at else 1
        if now - self._calm_since >= rules.calm_s * on_trial:
            return self._give(pressure, now, without)
        return Stay(self.rung, self.why)

    def follow(self, rung: int, why: str) -> None:
        """Stand where another worker stands, whose word counts."""
        if rung != self.rung:
            self._hot_since = self._calm_since = None
        self.rung, self.why = min(max(rung, 0), TOP), why

    def _full(self, pressure: Pressure) -> str:
        if not self._overrun or pressure.use <= ROOM_TO_SPARE:
            return ""
        return f"{pressure.use:.0%} of the replicas' room is in use"

    def _take(self, above: int, heat: str, for_load: bool, now: float) -> Step:
        calm_s = self.rules.calm_s
        if self._taken_at < self._given_at > now - RELAPSES * calm_s:  # the first one up after a trial
            self._patience = min(RELAPSES, 2 * self._patience)
        elif now - self._taken_at >= FORGIVEN * calm_s:
            self._patience = 1
        self._taken_at, self._hot_since = now, now
        self._overrun = self._overrun or for_load
        return self._move(above, f"{RUNGS[above].gives_up}: {heat}")

    def _give(self, pressure: Pressure, now: float, without: frozenset[int]) -> Step:
        below = next(rung for rung in range(self.rung - 1, -1, -1) if rung not in without)
        calm_s = now - (self._calm_since if self._calm_since is not None else now)
        self._calm_since = self._given_at = now
        state = (
            f"{pressure.errors.share:.1%} of {pressure.errors.answers} answers failed, waits {pressure.wait_s:.2f} s"
        )
        return self._move(
            below, f"{RUNGS[below].gives_up}: calm for {calm_s:.1f} s, {state}, {pressure.use:.0%} in use"
        )

    def _move(self, after: int, why: str) -> Step:
        step = Step(self.rung, after, RUNGS[after].name, why)
        self.rung, self.why = after, why
        return step
