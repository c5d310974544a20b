"""The watch: looks at every line some twenty times a second, pings, and takes silent replicas for lost.

It is the only timer of the data plane: streams have none of their own. policy.silence judges; this room gathers the evidence
and obeys. A suspected replica gets nothing new; its streams are fenced and move. What clears it fits what it was suspected of:
a frame of any kind ends silence, only a step ends a wedge; and every suspect of the other kinds is given another try after a
rest that doubles, since a replica that gets no work can't show that it is well. A line that stays silent is given up for a new
one: it may be half open.

Where nothing is in flight it looks and pings twice a second: idle sites cost next to nothing, and a freeze is still found
within two seconds. The first pick wakes it.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from holdfast.domain.event import (
    EjectionFrozen,
    Emit,
    ReplicaAiling,
    ReplicaCleared,
    ReplicaSuspected,
    SelfDoubted,
)
from holdfast.domain.ports import Clock, Stream
from holdfast.gateway.lines import Known, Lines, Suspicion
from holdfast.gateway.planned import Departures
from holdfast.policy import ejection, silence
from holdfast.policy.lane import Lane
from holdfast.policy.sanity import Docket, Insane
from holdfast.policy.silence import NOTHING, READING_MIN_TOKENS, Doubtful, Evidence, Patience, Silent, Wedged

PREFILL_CHUNK_TOKENS_MAX = 4096  # no engine reads more prompt than this in one step
IDLE_AFTER_S = 2.0  # so long after the last stream the looks become rare
DOUBT_S = 1.0  # for so long after a late look all limits are doubled
DOUBT_TOLD_S = 60.0  # and it is told no more often than this
REST_S = {Suspicion.WEDGED: 5.0, Suspicion.INSANE: 60.0}  # before the first new try
REST_S_MAX = 600.0
REDIAL_S = 3.0  # a line that a suspect was silent on for so long is given up for a new one: it may be half open


@dataclass
class Watch:
    """`tick_s` between two looks, a ping every `ping_s` on each line; both `idle_s` while nothing is in flight.

    `beat` is called with the time at every look: whoever hears nothing of it knows that this worker stands still.
    """

    lines: Lines
    patience: Patience
    clock: Clock
    emit: Emit
    tick_s: float = 0.05
    ping_s: float = 0.1
    idle_s: float = 0.5
    late_s: float = 0.2  # a look that comes later than this makes us doubt ourselves
    beat: Callable[[float], None] = lambda now: None
    departures: Departures = field(default_factory=lambda: Departures(Lane()))
    pinged_at: float = -1.0
    due_at: float = float("inf")  # of the next look
    busy_at: float = float("-inf")
    doubt_until: float = float("-inf")
    doubt_told_at: float = float("-inf")
    held: set[str] = field(default_factory=set)  # suspects that the half rule keeps in
    docket: Docket = field(default_factory=Docket)

    async def run(self) -> None:
        """Look until cancelled."""
        rest_s = self.tick_s
        while True:
            await self._rest(rest_s)
            rest_s = self.look(self.clock.now())

    def look(self, now: float) -> float:
        """One round. Returns the seconds until the next."""
        self.beat(now)
        seen_until = self._doubt(now)
        known = self.lines.known()
        rest_s = self._pace(known, now)
        changed = self._clear(known, now)
        changed |= any(one.line.gone for one in known.values())
        held: set[str] = set()
        for name, one in known.items():
            if one.suspected_at is None and not one.line.gone:
                changed |= self._judge(name, one, seen_until, held)
        self._hold(held)
        changed |= self._odd(known, now)
        self.departures.look(known, self.lines.owed)
        if now - self.pinged_at >= self.ping_s or rest_s > self.tick_s:
            self.pinged_at = now
            for one in known.values():
                if not one.line.gone and one.line.oldest_ping_at is None:
                    one.line.ping()
        if changed:
            self.lines.ring()
        self.due_at = now + rest_s
        return rest_s

    async def _rest(self, rest_s: float) -> None:
        """Until the next look is due, or sooner if something begins while nothing was in flight."""
        if rest_s <= self.tick_s:
            await self.clock.sleep(rest_s)
            return
        nap = asyncio.ensure_future(self.clock.sleep(rest_s))
        stir = asyncio.ensure_future(self.lines.stirred.wait())
        try:
            await asyncio.wait({nap, stir}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            nap.cancel()
            stir.cancel()

    def _pace(self, known: dict[str, Known], now: float) -> float:
        """How soon to look again: often while something is owed or a replica's idle gaps are not known yet."""
        if self.lines.stirred.is_set() or any(
            one.line.in_flight or one.line.oldest_ping_at is not None or not one.rhythm.knows_idle()
            for one in known.values()
            if not one.line.gone
        ):
            self.busy_at = now
        self.lines.stirred.clear()
        return self.tick_s if now - self.busy_at < IDLE_AFTER_S else self.idle_s

    def _doubt(self, now: float) -> float:
        """The moment up to which silence is counted: frames that came while our loop stood still are not read yet."""
        late_s = max(0.0, now - self.due_at)
        if late_s > self.late_s:
            self.doubt_until = now + max(DOUBT_S, late_s)
            if now - self.doubt_told_at >= DOUBT_TOLD_S:
                self.doubt_told_at = now
                why = f"our own look came {late_s:.1f} s late: all limits are doubled for a while"
                self.emit(SelfDoubted(observer="gateway", why=why))
        return now - late_s

    def _clear(self, known: dict[str, Known], now: float) -> bool:
        cleared = False
        for name, one in known.items():
            stepped = self._stepped(one, now)
            if one.suspected_at is None:
                continue
            why = ""
            if one.suspected_of is Suspicion.SILENT and one.line.last_frame_at > one.suspected_at:
                why = "it sends again"
            elif one.suspected_of is Suspicion.WEDGED and stepped:
                why = "it makes steps again"
            elif now >= one.again_at:
                why = f"it is given another try after a rest of {now - one.suspected_at:.0f} s"
            if why:
                one.suspected_at, one.gap_s_max, one.again_at = None, float("inf"), float("inf")
                one.stepped_at, one.cleared_at, cleared = now, now, True
                self.emit(ReplicaCleared(replica=name, why=why))
            elif one.suspected_of is Suspicion.SILENT and now - one.suspected_at >= REDIAL_S:
                one.worn = f"no frame for {now - one.line.last_frame_at:.1f} s: if only the line is broken, a new one will tell"
        return cleared

    def _stepped(self, one: Known, now: float) -> bool:
        """Take down whether it has made a step since the last look; replicas without work need not make any."""
        line = one.line
        newest = max((stream.last_token_at or 0.0 for stream in line.streams()), default=0.0)
        stepped = line.last_load.step != one.step or newest > one.stepped_at
        one.step = line.last_load.step
        if stepped and line.in_flight:
            at = max(newest, one.stepped_at) if newest > one.stepped_at else now
            if one.working and one.reading_tokens < READING_MIN_TOKENS:
                one.strides.add(at - one.stepped_at, line.in_flight)
            one.stepped_at = at
        elif not line.in_flight:
            one.stepped_at = now
        one.working = line.in_flight > 0
        return stepped

    def _fit(self, one: Known, now: float) -> bool:
        """Whether it could take over: it may serve, and was heard of within the floor."""
        if not one.may_serve or one.place.replica in self.held:
            return False
        return one.line.oldest_ping_at is None or now - one.line.last_frame_at <= self.patience.floor_s

    def _judge(self, name: str, one: Known, now: float, held: set[str]) -> bool:
        """Judge a replica, then each of its streams. Returns whether it is suspected now."""
        known = self.lines.known()
        others = sum(1 for other in known.values() if other is not one and self._fit(other, now))
        evidence = self._evidence(one, others, 2.0 if now < self.doubt_until else 1.0)
        verdict = silence.of_replica(evidence, self.patience, now)
        if isinstance(verdict, Doubtful):
            one.doubtful_at = now
        elif isinstance(verdict, Silent | Wedged):
            one.doubtful_at = now
            if verdict.capped or self._may_eject(known, others):
                of = Suspicion.SILENT if isinstance(verdict, Silent) else Suspicion.WEDGED
                self._suspect(name, one, of, verdict.why, now)
                if isinstance(verdict, Silent):
                    one.gap_s_max = 2 * verdict.limit_s
                return True
            held.add(name)
        self._streams(one, evidence, now)
        return False

    def _may_eject(self, known: dict[str, Known], others: int) -> bool:
        suspected = sum(1 for one in known.values() if one.suspected_at is not None) + len(self.lines.redialled)
        verdict = ejection.may_eject(suspected, self.lines.replicas or len(known), others)
        return isinstance(verdict, ejection.Allowed)

    def _suspect(self, name: str, one: Known, of: Suspicion, why: str, now: float) -> None:
        """It gets nothing new, and its streams move."""
        silent_s, streams = now - one.line.last_frame_at, one.line.in_flight
        one.suspected_at, one.suspected_of, one.reading_tokens = now, of, 0
        if of in REST_S:
            one.tries = 0 if now - one.cleared_at > REST_S_MAX else one.tries
            one.again_at = now + min(REST_S_MAX, REST_S[of] * 2**one.tries)
            one.tries += 1
        self.emit(ReplicaSuspected(replica=name, silent_s=silent_s, streams=streams, why=why))
        one.line.fail(why)

    def _hold(self, held: set[str]) -> None:
        """Keep in mind whom the half rule keeps in, and tell of it once."""
        if held and not self.held:
            known = self.lines.known()
            suspects = len(held) + len(self.lines.redialled)
            suspects += sum(1 for one in known.values() if one.suspected_at is not None)
            replicas = self.lines.replicas or len(known)
            why = (
                f"{', '.join(sorted(held))}: suspect too, but at most half of {replicas} may be taken out on suspicion"
            )
            self.emit(EjectionFrozen(suspects=suspects, replicas=replicas, why=why))
        self.held = held

    def _streams(self, one: Known, evidence: Evidence, now: float) -> None:
        """Single streams: past their deadline, or silent while their replica serves others."""
        line = one.line
        for stream in list(line.streams()):
            owed = self.lines.owed.get(stream.generation)
            if owed is not None and now >= owed.deadline:
                line.fail("the request's deadline passed", stream.generation)
                continue
            since = stream.submitted_at if stream.last_token_at is None else stream.last_token_at
            if stream.last_token_at is None and line.last_load.queued > 0:
                continue  # it waits for a slot inside the replica; that is no silence
            judged = silence.of_stream(now - since, evidence, self.patience, stream.last_token_at is not None)
            if isinstance(judged, Silent):
                line.fail(judged.why, stream.generation)

    def _evidence(self, one: Known, others: int, doubt: float) -> Evidence:
        line, patience = one.line, self.patience
        streams = list(line.streams())
        tail, reads = (rhythm.tail(len(streams), patience.factor) for rhythm in (one.rhythm, one.reads))
        if tail.gaps == 0:  # it reads all the time: its cadence holds that too
            tail = reads
        asked_at = [stream.submitted_at for stream in streams]
        if line.oldest_ping_at is not None:
            asked_at.append(line.oldest_ping_at)
        owed = min(asked_at, default=None)
        begun_at = max(line.last_frame_at, owed or 0.0) + max(
            tail.q99_s, self.tick_s
        )  # later ones wait for the next step
        reading = unread = 0
        for stream in streams:
            if stream.last_token_at is None:
                unread += stream.prompt_tokens
                reading += stream.prompt_tokens if stream.submitted_at <= begun_at else 0
        self._learn(one, streams)
        one.reading_tokens = reading = min(reading, PREFILL_CHUNK_TOKENS_MAX)
        return Evidence(
            last_frame_at=line.last_frame_at,
            owed_since=owed,
            tail=tail,
            strides=one.strides.tail(len(streams), patience.factor),
            in_flight=len(streams),
            reading_tokens=reading,
            unread_tokens=unread,
            reading_s_per_token=one.reading.s_per_token(patience.prefill_s_per_token),
            first_s_per_token=one.first.s_per_token(patience.prefill_s_per_token),
            reads=reads if reading >= READING_MIN_TOKENS else NOTHING,
            stepped_at=max(one.stepped_at, min(stream.submitted_at for stream in streams)) if streams else None,
            others=others,
            doubt=doubt,
        )

    def _learn(self, one: Known, streams: list[Stream]) -> None:
        """What a prompt takes until its first token, from those that got it since the last look."""
        waiting = set()
        for stream in streams:
            if stream.last_token_at is None:
                waiting.add(stream.generation)
            elif (
                stream.generation in one.unread
                and stream.prompt_tokens >= READING_MIN_TOKENS
                and not one.line.last_load.queued
            ):
                one.first.add(stream.last_token_at - stream.submitted_at, stream.prompt_tokens)
        one.unread = waiting

    def _odd(self, known: dict[str, Known], now: float) -> bool:
        """Answers that looked wrong since the last look. Returns whether a replica is suspected for it."""
        suspected = False
        found = self.lines.odd[:]
        self.lines.odd.clear()
        for odd in found:
            self.docket.note(odd, now)
        for odd in found:
            verdict = self.docket.judge(odd)
            self.emit(ReplicaAiling(replica=odd.replica, kind="wrong", why=verdict.why))
            one = known.get(odd.replica)
            if not isinstance(verdict, Insane) or one is None or one.suspected_at is not None or one.line.gone:
                continue
            others = sum(1 for other in known.values() if other is not one and self._fit(other, now))
            if self._may_eject(known, others):
                self.docket.forget(odd.replica)
                self._suspect(odd.replica, one, Suspicion.INSANE, verdict.why, now)
                suspected = True
        return suspected
