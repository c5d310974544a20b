"""Evidence: what each boot of a replica has said of itself over time, and what that proves.

The ears hand in every pong and the outcome of every canary; the supervisor asks, at every look, what ails a process. Histories
are short, per boot, and gone with the boot: a new life is innocent. Nothing is concluded from what was not heard: silence is
policy/supervision.py's to judge, and a ping without an answer is evidence neither of idleness nor of standing still.

Whether a step counter stood still is told by two pongs: from the moment the first had arrived to the moment the second was
asked for. Both ends are the replica's own word, so however late we are ourselves, it is never held against it.
"""

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from msgspec import Struct, structs

from holdfast.domain.ailment import Ailment, Cure, Exhibit
from holdfast.domain.event import Emit, ReplicaAiling, SelfDoubted
from holdfast.domain.release import Exactness, Release
from holdfast.domain.replica import Load
from holdfast.policy import bloat, canary, gray, wedge
from holdfast.policy.canary import Answer, Asked, Kind, Known
from holdfast.policy.gray import Pace

SPELLS_S = 600.0  # how long a slow step is remembered
PACES_MAX = 256
MEMORY_LOOK_S = 1.0


class Heard(Struct, frozen=True, kw_only=True):
    """What one boot of a replica last said. `asked_at` and `at` enclose the moment in which it was true, in the Clock's seconds.

    `late_s`: by how much our own loop was late with asking.
    """

    boot: str
    at: float
    load: Load
    release: Release | None
    asked_at: float = 0.0
    late_s: float = 0.0


class Rules(Struct, frozen=True, kw_only=True):
    """The settings that ailments are judged by."""

    wedged: wedge.Limits = wedge.Limits()
    canaries: canary.Rules = canary.Rules()
    chunk_tokens: int = 256  # prompt tokens that one step may read
    late_s: float = 0.2  # our own loop was unfit to judge
    wrong_max: int = 2
    slow_z: float = 3.5
    slow_s: float = 60.0
    replica_mib_max: float = 0.0
    gateway_mib_max: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What evidence is gathered from and kept with; app/ connects it with files and /proc.

    resident_mib: memory of a process by its name, None where nobody knows. recorded: the known answer of a release, None while
    there is none. agree: remember what two replicas agreed on. keep: put an exhibit away. Those that write never raise.
    """

    now: Callable[[], float]
    unix_s: Callable[[], float]
    emit: Emit
    resident_mib: Callable[[str], float | None] = lambda name: None
    recorded: Callable[[Release], Known | None] = lambda release: None
    agree: Callable[[Release, Known], None] = lambda release, known: None
    keep: Callable[[Exhibit], None] = lambda exhibit: None


@dataclass
class _History:
    """One boot."""

    boot: str
    last: Heard | None = None
    still_since: float | None = None
    still_until: float = 0.0
    doubtful: bool = False
    steps_known: bool = False
    spells: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=64))  # ended: when, for how long
    paces: deque[Pace] = field(default_factory=lambda: deque(maxlen=PACES_MAX))
    slow_since: float | None = None
    asked: Asked = field(default_factory=Asked)
    asking: bool = False
    unanswered: int = 0
    wrongs: int = 0
    wrong_since: float = 0.0
    wrong_why: str = ""
    answer: tuple[int, ...] = ()
    told: str = ""


class Evidence:
    """Histories and verdicts of all replicas of a site."""

    def __init__(self, rules: Rules, sources: Sources) -> None:
        self._rules, self._sources = rules, sources
        self._histories: dict[str, _History] = {}
        self._known: dict[str, Known] = {}  # by release digest
        self._memory: dict[str, tuple[float, float | None]] = {}
        self._doubted: set[str] = set()

    # the ears' side

    def hear(self, name: str, heard: Heard) -> None:
        """A pong."""
        one = self._of(name, heard.boot)
        before, one.last = one.last, heard
        if before is None:
            one.asked = structs.replace(one.asked, since=heard.at)
        else:
            self._learn_steps(one, before, heard)
            self._learn_pace(one, before, heard)
        if not one.asking:
            busy = heard.load.running + heard.load.queued > 0
            since = None if busy else (one.asked.idle_since or heard.at)
            one.asked = structs.replace(one.asked, idle_since=since)

    def forget(self, name: str, boot: str) -> None:
        """This boot is over: nothing of it counts against the next."""
        if name in self._histories and self._histories[name].boot == boot:
            del self._histories[name]

    def next_canary(self, name: str, boot: str) -> canary.Due | canary.Later:
        """What this boot should be asked now."""
        one, now = self._of(name, boot), self._sources.now()
        if one.last is None:
            return canary.Later(now + 1.0)
        return canary.next_canary(one.asked, one.last.load, self._rules.canaries, now)

    def question(self, release: Release | None) -> tuple[int, ...]:
        """The prompt of the canary with a known answer."""
        known = self._known_of(release)
        return known.prompt_ids if known is not None else canary.PROMPT_IDS

    def answer_tokens(self, release: Release | None) -> int:
        """How long its known answer is; 0 while none is known."""
        known = self._known_of(release)
        return len(known.ids) if known is not None else 0

    def patience_s(self, name: str, boot: str) -> float:
        """How long a canary is waited for: longer than it takes to see the step counter stand still because of it."""
        return 1.0 + 1.2 * wedge.limit_s(self._signs(self._of(name, boot)), self._rules.wedged)

    def asking(self, name: str, boot: str, on: bool) -> None:
        """A canary is under way, or is over: meanwhile what runs there may be ours."""
        one = self._of(name, boot)
        one.asking = on

    def unanswered(self, name: str, boot: str, kind: Kind, moved: bool) -> None:
        """A canary got no token in its time. `moved`: steps were made meanwhile, so it was only crowded out."""
        one, now = self._of(name, boot), self._sources.now()
        one.unanswered = 0 if moved else one.unanswered + 1
        known_at = now if kind is Kind.KNOWN else one.asked.known_at
        one.asked = structs.replace(one.asked, known_at=known_at, answered_at=now, again=None if moved else Kind.ALIVE)

    def answered(self, name: str, boot: str, kind: Kind, answer: Answer) -> None:
        """A canary came back."""
        one, now = self._of(name, boot), self._sources.now()
        one.unanswered = 0
        one.asked = structs.replace(one.asked, answered_at=now, again=None)
        if kind is Kind.KNOWN:
            one.asked = structs.replace(one.asked, known_at=now)
            self._compare(name, one, answer, now)

    def unasked(self, name: str, boot: str, kind: Kind) -> None:
        """It took no canary (draining, full, such a prompt is not for it): nothing is known, and it is asked again in time."""
        one, now = self._of(name, boot), self._sources.now()
        known_at = now if kind is Kind.KNOWN else one.asked.known_at
        one.asked = structs.replace(one.asked, known_at=known_at, answered_at=now, again=None)

    # the supervisor's side

    def ailment(self, name: str) -> Ailment | None:
        """What is wrong with this process, the gravest first; None while nothing is known against it."""
        now = self._sources.now()
        one = self._histories.get(name)
        found = None
        if one is not None and one.last is not None:
            found = self._wedged(one, now) or self._wrong(one)
        found = found or self._bloated(name, now)
        if found is None and one is not None:
            found = self._slow(name, one, now)
        self._tell(name, one, found)
        return found

    # inside

    def _of(self, name: str, boot: str) -> _History:
        one = self._histories.get(name)
        if one is None or one.boot != boot:
            one = self._histories[name] = _History(boot)
        return one

    def _learn_steps(self, one: _History, before: Heard, heard: Heard) -> None:
        """Take down for how long its step counter stood still while there was work."""
        worked = all(load.running + load.queued > 0 for load in (before.load, heard.load))
        moved = heard.load.step != before.load.step
        if moved or not worked:
            if one.still_since is not None and moved:
                one.spells.append((heard.at, heard.at - one.still_since))
            one.steps_known |= moved
            one.still_since, one.doubtful = None, False
        elif one.still_since is None:
            one.still_since = before.at
        one.still_until = heard.asked_at
        one.doubtful |= heard.late_s > self._rules.late_s

    def _learn_pace(self, one: _History, before: Heard, heard: Heard) -> None:
        steps = heard.load.paced_steps - before.load.paced_steps
        if steps > 0 and before.load.running and heard.load.running:
            batch = (before.load.running + heard.load.running) / 2
            one.paces.append(Pace(heard.at, batch, (heard.load.paced_s - before.load.paced_s) / steps))

    def _signs(self, one: _History) -> wedge.Signs:
        now = self._sources.now()
        while one.spells and now - one.spells[0][0] > SPELLS_S:
            one.spells.popleft()
        slowest = max((spell for _, spell in one.spells), default=0.0 if one.steps_known else None)
        still_s = 0.0 if one.still_since is None else max(0.0, one.still_until - one.still_since)
        return wedge.Signs(
            still_s=still_s,
            slowest_s=slowest,
            prefill_tokens=self._rules.chunk_tokens,
            doubtful=one.doubtful,
            unanswered=one.unanswered,
        )

    def _wedged(self, one: _History, now: float) -> Ailment | None:
        verdict = wedge.of_replica(self._signs(one), self._rules.wedged)
        if not isinstance(verdict, wedge.Wedged):
            return None
        since = now if one.still_since is None else one.still_since
        return Ailment(kind="wedged", cure=Cure.KILL, why=verdict.why, since=since, on_suspicion=not verdict.certain)

    def _wrong(self, one: _History) -> Ailment | None:
        if one.wrongs < self._rules.wrong_max:
            return None
        why = f"{one.wrongs} canaries in a row came back wrong: {one.wrong_why}"
        return Ailment(kind="wrong", cure=Cure.CONDEMN, why=why, since=one.wrong_since)

    def _bloated(self, name: str, now: float) -> Ailment | None:
        rules = self._rules
        limit = rules.gateway_mib_max if name.startswith("gateway") else rules.replica_mib_max
        if limit <= 0 or name.startswith("control"):
            return None
        at, resident = self._memory.get(name, (float("-inf"), None))
        if now - at >= MEMORY_LOOK_S:
            at, resident = self._memory[name] = now, self._sources.resident_mib(name)
        verdict = bloat.of_process(resident, limit)
        if not isinstance(verdict, bloat.Bloated):
            return None
        return Ailment(kind="bloated", cure=Cure.RENEW, why=verdict.why, since=at, on_suspicion=not verdict.over)

    def _slow(self, name: str, one: _History, now: float) -> Ailment | None:
        rules = self._rules
        since = now - rules.slow_s / 2
        alike = {who: history for who, history in self._histories.items() if _build(history) == _build(one)}
        recent = {who: [pace for pace in history.paces if pace.at >= since] for who, history in alike.items()}
        own = recent.pop(name)
        verdict = gray.of_replica(own, recent.values(), rules.slow_z)
        if not isinstance(verdict, gray.Slow):
            one.slow_since = None
            return None
        if one.slow_since is None:
            one.slow_since = now
        if now - one.slow_since < rules.slow_s:
            return None
        why = f"slow for {now - one.slow_since:.0f} s: {verdict.why}"
        return Ailment(kind="slow", cure=Cure.RENEW, why=why, since=one.slow_since)

    def _known_of(self, release: Release | None) -> Known | None:
        if release is None:
            return None
        found = self._known.get(release.digest) or self._sources.recorded(release)
        if found is not None:
            self._known[release.digest] = found
        return found

    def _compare(self, name: str, one: _History, answer: Answer, now: float) -> None:
        """Judge the answer of a canary, or learn from it."""
        release = one.last.release if one.last is not None else None
        if release is None:
            return
        one.answer = answer.ids
        peers = {who: history.answer for who, history in self._histories.items() if self._kin(history, release)}
        known = self._known_of(release)
        if known is None:
            self._learn_answer(release, peers)
            return
        del peers[name]
        verdict = canary.judge(answer, known, frozenset(peers.values()) - {()})
        if isinstance(verdict, canary.Right):
            one.wrongs = 0
            if answer.ids in peers.values() and answer.ids != known.ids:
                self._doubt_known(release, verdict.why)
            return
        one.wrongs += 1
        one.wrong_why, one.wrong_since = verdict.why, one.wrong_since if one.wrongs > 1 else now
        if one.wrongs < self._rules.wrong_max:
            one.asked = structs.replace(one.asked, again=Kind.KNOWN)
        self._sources.keep(
            Exhibit(
                replica=name,
                boot=one.boot,
                kind="wrong",
                why=verdict.why,
                at=self._sources.unix_s(),
                release=release.digest,
                prompt_ids=known.prompt_ids,
                expected=known.ids,
                got=answer.ids,
            )
        )

    def _kin(self, history: _History, release: Release) -> bool:
        said = history.last.release if history.last is not None else None
        return said is not None and said.digest == release.digest

    def _learn_answer(self, release: Release, answers: Mapping[str, tuple[int, ...]]) -> None:
        ids = canary.agreed(answers)
        given = sorted(who for who, answer in answers.items() if answer)
        if ids is None and len(given) > 1 and release.exactness is not Exactness.FAIR:
            self._doubt_known(
                release,
                f"{', '.join(given)} all answer one canary differently, and nobody knows who is right: "
                "holdfast validate --record would have told",
            )
        if ids is not None:
            known = Known(prompt_ids=canary.PROMPT_IDS, ids=ids, source="agreed")
            self._known[release.digest] = known
            self._sources.agree(release, known)

    def _doubt_known(self, release: Release, why: str) -> None:
        if release.digest not in self._doubted:
            self._doubted.add(release.digest)
            self._sources.emit(SelfDoubted(observer="canary", why=why))

    def _tell(self, name: str, one: _History | None, found: Ailment | None) -> None:
        """Tell each finding once."""
        if one is None:
            return
        if found is not None and found.kind != one.told:
            self._sources.emit(ReplicaAiling(replica=name, kind=found.kind, why=f"{name}: {found.why}"))
        one.told = found.kind if found is not None else ""


def _build(history: _History) -> tuple[str, str]:
    """Which model it serves, by which engine: the pace of another one is no measure."""
    release = history.last.release if history.last is not None else None
    return (release.model, release.engine) if release is not None else ("", "")
