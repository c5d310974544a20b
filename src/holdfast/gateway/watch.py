"""The watch: looks at every line some twenty times a second, pings, and takes silent replicas for lost.

It is the only timer of the data plane: streams have none of their own. policy.silence judges; this room gathers the evidence
and obeys. A suspected replica gets nothing new; its streams are fenced and move; a frame of any kind clears it.
"""

from dataclasses import dataclass

from holdfast.domain.event import Emit, ReplicaCleared, ReplicaSuspected
from holdfast.domain.ports import Clock, Line
from holdfast.gateway.lines import Known, Lines
from holdfast.policy import silence
from holdfast.policy.silence import Evidence, Patience, Silent

PREFILL_CHUNK_TOKENS_MAX = 4096  # no engine reads more prompt than this in one step


@dataclass
class Watch:
    """`tick_s` between two looks; a ping every `ping_s` on each line."""

    lines: Lines
    patience: Patience
    clock: Clock
    emit: Emit
    tick_s: float = 0.05
    ping_s: float = 0.1
    late_s: float = 0.2  # a look that comes later than this blames nobody but ourselves
    pinged_at: float = -1.0
    looked_at: float = -1.0

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await self.clock.sleep(self.tick_s)
            self.look(self.clock.now())

    def look(self, now: float) -> None:
        """One round."""
        late = self.looked_at >= 0 and now - self.looked_at > self.tick_s + self.late_s
        self.looked_at = now
        known = self.lines.known()
        changed = self._clear(known)
        changed |= any(one.line.gone for one in known.values())
        if not late:
            moving = sum(1 for one in known.values() if self._fit(one, now))
            for name, one in known.items():
                if one.suspected_at is None and not one.line.gone:
                    changed |= self._judge(name, one, moving, now)
        if now - self.pinged_at >= self.ping_s:
            self.pinged_at = now
            for one in known.values():
                if not one.line.gone and one.line.oldest_ping_at is None:
                    one.line.ping()
        if changed:
            self.lines.ring()

    def _clear(self, known: dict[str, Known]) -> bool:
        cleared = False
        for name, one in known.items():
            if one.suspected_at is not None and one.line.last_frame_at > one.suspected_at:
                one.suspected_at, cleared = None, True
                self.emit(ReplicaCleared(replica=name, why="it sends again"))
        return cleared

    def _fit(self, one: Known, now: float) -> bool:
        """Whether it could take over: not suspect, and heard of within the floor."""
        if one.suspected_at is not None or one.line.gone or one.line.last_load.draining:
            return False
        return one.line.oldest_ping_at is None or now - one.line.last_frame_at <= self.patience.floor_s

    def _judge(self, name: str, one: Known, moving: int, now: float) -> bool:
        """Judge a replica, then each of its streams. Returns whether it is suspected now."""
        line = one.line
        others = moving - (1 if self._fit(one, now) else 0)
        evidence = self._evidence(one, line, others)
        verdict = silence.of_replica(evidence, self.patience, now)
        if isinstance(verdict, Silent):
            one.suspected_at = now
            self.emit(
                ReplicaSuspected(replica=name, silent_s=verdict.silent_s, streams=line.in_flight, why=verdict.why)
            )
            line.fail(verdict.why)
            return True
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
        return False

    def _evidence(self, one: Known, line: Line, others: int) -> Evidence:
        owed = line.oldest_ping_at
        prefill = 0
        for stream in line.streams():
            if stream.last_token_at is None:
                prefill = max(prefill, min(stream.prompt_tokens, PREFILL_CHUNK_TOKENS_MAX))
            if owed is None or stream.submitted_at < owed:
                owed = stream.submitted_at
        return Evidence(
            last_frame_at=line.last_frame_at,
            owed_since=owed,
            q99_s=one.cadence.quantile(0.99),
            gaps=one.cadence.count,
            prefill_tokens=prefill,
            others=others,
        )
