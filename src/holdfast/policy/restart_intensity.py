"""Restart intensity: may a process that died be started again, when, or never?

    n            deaths that count: those after the last life that served for `healthy_reset_s`
    n <= free    almost at once, since most deaths are single: `settle_s` after the death, in which the answers that a replica
                 has left are read again elsewhere. A process that starts takes processors and disks that they need now
    n >  free    at the last death + min(cap, first * 2 ** (n - free - 1)) * (1 - jitter / 4), jitter in [0, 1)
    deaths_max deaths within max(deaths_window_s, 3 * load time): given up, since a fourth start would only repeat the third

Anchors: Kubernetes' CrashLoopBackOff (10 s doubling to 300 s, forgiven after 10 minutes) and OTP's intensity, whose lesson is
that somebody must give up. The window grows with the load time because a model that loads for five minutes can't die three
times in ten. Jitter keeps replicas that died together from loading together; it is drawn once, when the death is written
down, so that the same deaths always give the same moment.
"""

from msgspec import Struct

from holdfast.domain.settings import Restart

TIRELESS_S = 5.0  # longest delay of a process that is never given up


class Death(Struct, frozen=True, kw_only=True):
    """One death. `at` in the Clock's seconds; `served_s` how long that life had served; `jitter` in [0, 1)."""

    at: float
    served_s: float
    why: str
    jitter: float = 0.0


class Again(Struct, frozen=True):
    """Start it now."""

    why: str


class Later(Struct, frozen=True):
    """Start it at `at`, not before."""

    at: float
    why: str


class GiveUp(Struct, frozen=True):
    """Don't start it any more: somebody has to look."""

    why: str


Verdict = Again | Later | GiveUp


def counted(deaths: tuple[Death, ...], healthy_reset_s: float) -> tuple[Death, ...]:
    """The deaths that still count, oldest first: a long service forgives what was before it, its own end counts anew."""
    for index in range(len(deaths) - 1, -1, -1):
        if deaths[index].served_s >= healthy_reset_s:
            return deaths[index:]
    return deaths


def ask(deaths: tuple[Death, ...], rules: Restart, load_s: float, now: float, tireless: bool = False) -> Verdict:
    """The verdict on a process that is down. `load_s` is how long it takes to become ready.

    `tireless` is for processes without which nothing is reachable at all: they are never given up, and never wait longer than
    TIRELESS_S.
    """
    counting = counted(deaths, rules.healthy_reset_s)
    n = len(counting)
    if n == 0:
        return Again("it is wanted and does not run")
    window_s = max(rules.deaths_window_s, 3 * load_s)
    within = sum(1 for death in counting if now - death.at <= window_s)
    last = counting[-1]
    if within >= rules.deaths_max and not tireless:
        return GiveUp(
            f"it died {within} times within {window_s:.0f} s, the limit is {rules.deaths_max}; the last time: {last.why}"
        )
    if n <= rules.free:
        at = last.at if tireless else last.at + rules.settle_s
        if now >= at:
            return Again(f"restart {n} of {rules.free} that are free of delay")
        return Later(at, f"death {n}: the answers that it left go first, for {at - now:.1f} s")
    longest_s = min(rules.delay_max_s, TIRELESS_S) if tireless else rules.delay_max_s
    full_s = min(longest_s, rules.first_delay_s * 2.0 ** min(n - rules.free - 1, 30))
    at = last.at + full_s * (1 - last.jitter / 4)
    if now >= at:
        return Again(f"{now - last.at:.1f} s have passed since death {n}")
    return Later(at, f"death {n}: next start in {at - now:.1f} s")
