"""One gateway worker, put together: lines, watch, roster and stack behind one door, until it is told to leave.

What it can't make itself is handed in as Parts, so that a story can put the same worker on simulated parts.
"""

import asyncio
import socket
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache

from holdfast.domain.dialect import Dialect
from holdfast.domain.event import Emit
from holdfast.domain.ports import Clock, Shelf
from holdfast.domain.release import Exactness, Release
from holdfast.domain.roster import Roster
from holdfast.domain.settings import Settings
from holdfast.gateway.admit import Gate
from holdfast.gateway.archive import Archive
from holdfast.gateway.follow import Follower
from holdfast.gateway.http import Door
from holdfast.gateway.identify import screen
from holdfast.gateway.journal import Journal
from holdfast.gateway.lane import Turns
from holdfast.gateway.lines import Dialler, Lines
from holdfast.gateway.needs import Limits, ModelCard, Needs
from holdfast.gateway.quarantine import Cells, OwnCells, OwnRegister, Quarantine, Register
from holdfast.gateway.stack import Moving, Wiring, stack
from holdfast.gateway.streams import Streams
from holdfast.gateway.vigil import Vigil
from holdfast.gateway.watch import Watch
from holdfast.policy.admission import Admission
from holdfast.policy.breaker import Breaker
from holdfast.policy.continuation import contract
from holdfast.policy.lane import Lane
from holdfast.policy.retry_budget import FLOOR_LANES, RetryBudget
from holdfast.policy.silence import Patience
from holdfast.policy.token_bucket import TokenBucket


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a worker gets from outside. `announce` is called with host:port once it listens.

    `listener` is the listening socket that the supervisor lends to all workers; without one this worker binds its own.
    `beat` is told the time at each look of the watch. `shelf` is where the journal lies; None: there is none. `owner` names
    this life of this worker in it; `farewell` is called at the end, with whether somebody may still ask for what lies there.
    `descriptors`: see Needs.
    """

    dialler: Dialler
    dialect: Dialect
    read_roster: Callable[[], Roster | None]
    context_tokens_max: int
    clock: Clock
    unix_s: Callable[[], float]
    bits: Callable[[int], int]
    emit: Emit
    announce: Callable[[str], None]
    listener: socket.socket | None = None
    beat: Callable[[float], None] = lambda now: None
    cells: Cells = field(default_factory=OwnCells)
    shelf: Shelf | None = None
    owner: str = "gateway-0.0"
    farewell: Callable[[bool], None] = lambda owes: None
    descriptors: Callable[[], tuple[int, int]] | None = None
    register: Register = field(default_factory=OwnRegister)


async def work(settings: Settings, parts: Parts, leave: asyncio.Event) -> None:
    """Serve until `leave` is set, then drain.

    Raises:
        OSError: the port can't be had.
    """
    clock, emit = parts.clock, parts.emit
    wiring = wire(settings, parts)
    lines = wiring.lines
    watch = Watch(lines, patience_of(settings), clock, emit, beat=parts.beat)
    if wiring.moving is not None:
        watch.departures.lane = wiring.moving.turns.lane
    follower = Follower(lines, parts.read_roster, clock)
    vigil = Vigil(lines, clock)
    archive, wiring = journalled(settings, parts, wiring)
    journal = wiring.journal
    door = Door(needs_of(settings, parts, wiring, archive))
    await lines.follow(parts.read_roster() or Roster())
    host, port = await door.serve(parts.listener or (settings.gateway.host, settings.gateway.port))
    parts.announce(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    turning = [asyncio.create_task(watch.run()), asyncio.create_task(follower.run()), asyncio.create_task(vigil.run())]
    if journal is not None:
        turning.append(asyncio.create_task(journal.run()))
    leaving = asyncio.create_task(leave.wait())
    try:
        done, _ = await asyncio.wait({leaving, *turning}, return_when=asyncio.FIRST_COMPLETED)
        for task in done - {leaving}:
            task.result()  # a watch that ended is a fault of ours: end too, and be started anew
        await door.drain(settings.gateway.drain_s)
    finally:
        for task in (leaving, *turning):
            task.cancel()
        await asyncio.gather(leaving, *turning, return_exceptions=True)
        await lines.close()
        if journal is not None and archive is not None:
            owes = journal.owes()
            journal.close()
            archive.close()
            parts.farewell(owes)


def journalled(settings: Settings, parts: Parts, wiring: Wiring) -> tuple[Archive | None, Wiring]:
    """The [journal] section: this worker's journal in its wiring, and the archive that reads everybody's."""
    section = settings.journal
    if not section.on or parts.shelf is None:
        return None, wiring
    archive = Archive(parts.shelf, parts.clock, section.grace_s)
    journal = Journal(parts.shelf, archive, parts.owner, parts.clock, parts.emit)
    journal.bytes_max, journal.grace_s = section.bytes_max, section.grace_s
    journal.release = lambda: release.digest if (release := wiring.lines.release()) else ""
    return archive, replace(wiring, journal=journal)


def wire(settings: Settings, parts: Parts) -> Wiring:
    """What the layers need, from the settings."""
    admission, breaker = settings.admission, settings.breaker

    def fresh_breaker() -> Breaker:
        return Breaker(breaker.failures_max, breaker.open_s, breaker.open_max_s)

    bucket = TokenBucket(admission.requests_per_s, admission.burst)
    lines = Lines(parts.dialler, parts.clock, parts.emit, fresh_breaker)
    return Wiring(
        keys=frozenset({settings.gateway.key} - {""}),
        gate=Gate(Admission(bucket, admission.queue_max, admission.queue_wait_s)),
        lines=lines,
        clock=parts.clock,
        emit=parts.emit,
        moves_max=settings.failover.moves_max,
        moving=moving_of(settings, parts, lines),
    )


def moving_of(settings: Settings, parts: Parts, lines: Lines) -> Moving:
    """The [failover] lane and budget, and the [poison] section. The lane is shared out among the workers."""
    quarantine = Quarantine(
        lines=lines,
        clock=parts.clock,
        unix_s=parts.unix_s,
        emit=parts.emit,
        cells=parts.cells,
        register=parts.register,
        keep_s=settings.poison.keep_s,
        clear_tokens=settings.poison.clear_tokens,
    )
    lane_tokens = settings.failover.lane_tokens
    turns = Turns(lines, quarantine, parts.clock, Lane(max(1, lane_tokens // settings.gateway.workers)))
    return Moving(quarantine, turns, RetryBudget(settings.failover.budget_share, FLOOR_LANES * lane_tokens))


def patience_of(settings: Settings) -> Patience:
    """The [failover] section in the words of policy.silence."""
    failover = settings.failover
    return Patience(
        floor_s=failover.silence_floor_s,
        cap_s=failover.silence_cap_s,
        factor=failover.silence_factor,
        unlearned_s=failover.silence_unlearned_s,
        stream_floor_s=failover.stream_floor_s,
        first_token_s=failover.first_token_s,
        prefill_s_per_token=failover.prefill_s_per_token,
    )


def needs_of(settings: Settings, parts: Parts, wiring: Wiring, archive: Archive | None = None) -> Needs:
    """What the door needs."""
    gateway, guard, lines, service = settings.gateway, settings.guard, wiring.lines, stack(wiring)
    streams = None
    if wiring.journal is not None and archive is not None and parts.shelf is not None:
        streams = Streams(wiring.journal, archive, parts.shelf, service, parts.clock)
    created_unix_s = int(parts.unix_s())

    @lru_cache(maxsize=2)  # asked for by every request, and seldom another
    def card_of(release: Release | None) -> ModelCard:
        return ModelCard(
            name=settings.model.name,
            digest=release.digest if release else "",
            exactness=release.exactness if release else Exactness.FAIR,
            context_tokens_max=parts.context_tokens_max,
            max_tokens_default=settings.request.max_tokens_default,
            created_unix_s=created_unix_s,
        )

    def ready() -> tuple[bool, str]:
        slots = lines.slots()
        return slots > 0, f"{slots} slots" if slots else "no replica may serve at present"

    return Needs(
        service=service,
        streams=streams,
        linger_s=settings.journal.linger_s,
        descriptors=parts.descriptors,
        screen=screen(wiring.keys),
        dialect=parts.dialect,
        card=lambda: card_of(lines.release()),
        contract=contract,
        ready=ready,
        clock=parts.clock,
        unix_s=parts.unix_s,
        bits=parts.bits,
        emit=parts.emit,
        limits=Limits(
            head_bytes_max=gateway.header_bytes_max,
            body_bytes_max=gateway.body_bytes_max,
            head_s=gateway.header_s,
            body_s=gateway.body_s,
            idle_s=gateway.idle_s,
            stall_s=gateway.unread_s,
            deadline_s=settings.request.deadline_s,
            connections_max=gateway.connections_max,
            stream_bytes_max=guard.stream_bytes_max,
            buffers_bytes_max=guard.buffers_bytes_max,
            descriptors_share=guard.descriptors_share,
        ),
    )
