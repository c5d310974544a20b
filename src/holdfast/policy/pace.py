"""Pace: how much the replicas get done while somebody waits, and how long an answer takes. Every predicted wait rests on it.

Work that is done while nobody waits tells what was asked for, not what could be done; so only time with a queue counts, and
what ended in it: pace = work / time, both forgotten with a time constant of MEMORY_S of such time. A queue that is kept short
on purpose is empty for moments between two arrivals. Counted by itself, each time with a queue would end with somebody's end,
which makes the pace look too high; so a gap of up to GAP_S belongs to the time around it. When slots come or go, the pace is
taken to change with them at once, and is then measured again.

Before there was a queue at all, the pace is slots over what an answer took: a guess, too high if full batches are slower.

How long an answer takes is a line through the last answers (seconds over tokens), drawn towards proportion where their
lengths say little, with the mean deviation on top: most answers take no longer than that.
"""

from math import exp

MEMORY_S = 5.0
GAP_S = 0.25
_ANSWERS_MIN = 4.0  # fewer that ended in time with a queue are no measurement
_KEEP = 0.97  # of what earlier answers taught, with each one that ends: about the last 33 count
_SPREAD = 0.1  # lengths that vary by less than so much of their mean say little about a slope


class Pace:
    """What is done in a second. All times are the Clock's seconds; work is in tokens."""

    def __init__(self) -> None:
        self.slots = 0
        self._waits = False
        self._until = 0.0  # up to where time is counted
        self._time_s = 0.0
        self._work = 0.0
        self._answers = 0.0
        self._new_work = 0.0  # ended since `_until`
        self._new_answers = 0
        self._service = _Service()
        self._mean_work = 0.0

    def busy(self, waits: bool, now: float) -> None:
        """Somebody waits, or nobody does; to be told whenever that changes, and more often does no harm."""
        if self._waits or (waits and now - self._until <= GAP_S):
            self._count(now)
        elif waits:
            self._until, self._new_work, self._new_answers = now, 0.0, 0
        self._waits = waits

    def done(self, work: float, answers: int, now: float) -> None:
        """Work was done, and so many answers ended with it."""
        self._new_work += work
        self._new_answers += answers
        if answers:
            weight = 1.0 - _KEEP if self._mean_work else 1.0
            self._mean_work += weight * (work / answers - self._mean_work)
        if self._waits:
            self._count(now)
        elif now - self._until > GAP_S:
            self._new_work, self._new_answers = 0.0, 0

    def sized(self, slots: int) -> None:
        """All replicas together have so many slots now."""
        if self.slots and slots and slots != self.slots:
            self._work *= slots / self.slots
            self._answers *= slots / self.slots
        self.slots = slots or self.slots

    def ended(self, tokens: int, seconds: float) -> None:
        """An answer of so many tokens ended so many seconds after it was let in."""
        self._service.learn(float(tokens), seconds)

    def work_per_s(self, now: float) -> float:
        """Tokens of work a second; 0 while it is not known."""
        if self._waits:
            self._count(now)
        if self._answers >= _ANSWERS_MIN and self._time_s > 0:
            return self._work / self._time_s
        return self._guess() * self._mean_work

    def answers_per_s(self, now: float) -> float:
        """Answers a second; 0 while it is not known."""
        if self._waits:
            self._count(now)
        if self._answers >= _ANSWERS_MIN and self._time_s > 0:
            return self._answers / self._time_s
        return self._guess()

    def service_s(self, expected_tokens: int, now: float) -> float:
        """Seconds from being let in to the end that an answer of so many tokens takes, seldom more; 0 while not known."""
        return self._service.takes_s(float(expected_tokens))

    def _guess(self) -> float:
        mean_s = self._service.mean_s
        return self.slots / mean_s if mean_s > 0 else 0.0

    def _count(self, now: float) -> None:
        span_s = now - self._until
        if span_s > 0:
            kept = exp(-span_s / MEMORY_S)
            self._time_s = self._time_s * kept + span_s
            self._work *= kept
            self._answers *= kept
            self._until = now
        if self._new_answers or self._new_work:
            self._work += self._new_work
            self._answers += self._new_answers
            self._new_work, self._new_answers = 0.0, 0


class _Service:
    """A fading least-squares line of seconds over tokens, and the mean deviation from it."""

    __slots__ = ("deviation_s", "mean_s", "products", "squares", "tokens", "weight")

    def __init__(self) -> None:
        self.weight = 0.0
        self.tokens = 0.0  # mean
        self.mean_s = 0.0
        self.squares = 0.0  # of tokens around their mean
        self.products = 0.0
        self.deviation_s = 0.0

    def learn(self, tokens: float, seconds: float) -> None:
        if self.weight:
            off = abs(seconds - self._line(tokens))
            self.deviation_s += (1.0 - _KEEP) * (off - self.deviation_s)
        self.weight = self.weight * _KEEP + 1.0
        share = 1.0 / self.weight
        token_step, second_step = tokens - self.tokens, seconds - self.mean_s
        self.tokens += share * token_step
        self.mean_s += share * second_step
        self.squares = (1.0 - share) * (self.squares + share * token_step * token_step)
        self.products = (1.0 - share) * (self.products + share * token_step * second_step)

    def takes_s(self, tokens: float) -> float:
        return self._line(tokens) + self.deviation_s if self.weight else 0.0

    def _line(self, tokens: float) -> float:
        if self.tokens <= 0:
            return self.mean_s
        ratio = self.mean_s / self.tokens
        prior = (_SPREAD * self.tokens) ** 2
        slope = max(0.0, (self.products + prior * ratio) / (self.squares + prior))
        start_s = self.mean_s - slope * self.tokens
        return ratio * tokens if start_s < 0 else start_s + slope * tokens
