"""One gateway worker, put together: lines, watch, roster and stack behind one door, until it is told to leave.

What it can't make itself is handed in as Parts, so that a story can put the same worker on simulated parts.
"""

import asyncio
import socket
import ssl
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from msgspec import structs
from prometheus_client import CollectorRegistry

from holdfast.domain.address import is_loopback
from holdfast.domain.board import Board, Ledger, Rate, WorkerView
from holdfast.domain.dialect import Dialect, ThinkingEnd
from holdfast.domain.event import Emit
from holdfast.domain.key import Looked
from holdfast.domain.ports import Clock, Shelf
from holdfast.domain.release import Release
from holdfast.domain.roster import Roster
from holdfast.domain.settings import Settings
from holdfast.gateway.access import Access
from holdfast.gateway.archive import Archive
from holdfast.gateway.board_metrics import BoardCollector
from holdfast.gateway.degrade import Degrader, LadderCollector, degrader_of
from holdfast.gateway.follow import Follower, of_model
from holdfast.gateway.gate import Gate
from holdfast.gateway.gate_metrics import GateCollector
from holdfast.gateway.gate_view import Ears, view_of
from holdfast.gateway.http import Door
from holdfast.gateway.identify import screen, screen_metrics
from holdfast.gateway.journal import Journal
from holdfast.gateway.keys import KeyWatch
from holdfast.gateway.lane import Turns
from holdfast.gateway.lines import Dialler, Lines, making
from holdfast.gateway.metrics import Tally
from holdfast.gateway.needs import Limits, ModelCard, Needs
from holdfast.gateway.quarantine import Cells, OwnCells, OwnRegister, Quarantine, Register
from holdfast.gateway.smaller import Second, SmallerModel, stand_in
from holdfast.gateway.stack import Moving, Wiring, stack
from holdfast.gateway.streams import Streams
from holdfast.gateway.telling import OwnBoard, Teller
from holdfast.gateway.tenants import Tenants, tenants_of
from holdfast.gateway.vigil import Vigil
from holdfast.gateway.watch import Watch
from holdfast.policy.admission import Admission
from holdfast.policy.breaker import Breaker
from holdfast.policy.continuation import promise
from holdfast.policy.expectation import Expectation
from holdfast.policy.lane import Lane
from holdfast.policy.quota import Quota
from holdfast.policy.retry_budget import FLOOR_LANES, RetryBudget
from holdfast.policy.silence import Patience
from holdfast.policy.throttle import Throttle
from holdfast.policy.token_bucket import OwnLedger


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a worker gets from outside. `announce` is called with host:port once it listens.

    `listener` is the listening socket that the supervisor lends to all workers; without one this worker binds its own.
    `beat` is told the time at each look of the watch. `shelf` is where the journal lies; None: there is none. `owner` names
    this life of this worker in it; `farewell` is called at the end, with whether somebody may still ask for what lies there.
    `descriptors`: see Needs. `board` and `ledger` are what it shares with the other workers: counts, views, rates, quotas.
    `beside`: what must run as long as it serves. `smaller`: the model that answers on a rung of the ladder; None: there is none.
    `access` takes down each request; None: nothing does. `look_at_keys` reads the key ring of the site. `tls`: see Needs.
    The door's figures are in `registry`.
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
    board: Board = field(default_factory=OwnBoard)
    ledger: Ledger = field(default_factory=OwnLedger)
    beside: tuple[Callable[[], Coroutine[Any, Any, None]], ...] = ()
    tls: Callable[[], ssl.SSLContext] | None = None
    smaller: SmallerModel | None = None
    access: Access | None = None
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    look_at_keys: Callable[[], Looked] = lambda: Looked(None)


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
    read_roster = of_model(parts.read_roster)
    follower = Follower(lines, read_roster, clock)
    vigil = Vigil(lines, clock)
    keys = keys_of(settings, parts, wiring)
    archive, wiring = journalled(settings, parts, wiring)
    journal = wiring.journal
    needs = needs_of(settings, parts, wiring, archive)
    needs.registry.register(GateCollector(wiring.gate))
    needs.registry.register(BoardCollector(parts.board))
    degrader = degrader_of(settings, parts.owner, parts.board.told, tenants=wiring.gate.tenants, clock=clock, emit=emit)
    wiring.gate.refuses = degrader.refuses
    needs.registry.register(LadderCollector(degrader))
    needs = replace(needs, degrader=degrader)
    second = second_of(settings, parts, needs, degrader, wiring.gate.tenants)
    if second is not None:
        needs = replace(needs, smaller=second.smaller)
        wiring.gate.elsewhere = second.smaller.takes
    door = Door(needs)
    ears = Ears(wiring.gate, parts.board, parts.owner)
    teller = Teller(parts.owner, parts.board, clock, lines, partial(_seen, wiring.gate, door.tally))
    teller.tokens = lambda: door.tally.tokens_out
    teller.rung = lambda: (degrader.rung, degrader.why)
    await lines.follow(read_roster() or Roster())
    host, port = await door.serve(parts.listener or (settings.gateway.host, settings.gateway.port))
    parts.beat(clock.now())  # one that freezes before its first look must be missed too
    parts.announce(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    running = [watch.run(), follower.run(), vigil.run(), ears.run(clock), teller.run(), degrader.run()]
    running += [keys.run(clock), *(one() for one in parts.beside)]
    running += [*(second.running if second else ()), *([journal.run()] if journal else ())]
    turning = [asyncio.create_task(one) for one in running]
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
        if second is not None:
            await second.lines.close()
        if journal is not None and archive is not None:
            owes = journal.owes()
            journal.close()
            archive.close()
            parts.farewell(owes)


def keys_of(settings: Settings, parts: Parts, wiring: Wiring) -> KeyWatch:
    """The watch over the key ring, which has looked once."""
    gateway = settings.gateway
    unkeyed = gateway.open or is_loopback(gateway.host)
    watch = KeyWatch(wiring.gate.tenants, parts.look_at_keys, parts.unix_s, parts.emit, unkeyed)
    watch.look()
    return watch


def second_of(settings: Settings, parts: Parts, main: Needs, degrader: Degrader, tenants: Tenants) -> Second | None:
    """The smaller model, as a gateway of its own beside `main`."""
    model, clock = parts.smaller, parts.clock
    if model is None:
        return None
    read = of_model(parts.read_roster, model.name)
    theirs = replace(
        parts, dialect=model.dialect, context_tokens_max=model.context_tokens_max, shelf=None, smaller=None
    )
    named = structs.replace(settings, model=structs.replace(settings.model, name=model.name))
    wiring = wire(named, theirs)
    wiring.gate.refuses, wiring.gate.tenants, lines = degrader.refuses, tenants, wiring.lines
    watch = Watch(lines, patience_of(settings), clock, parts.emit)
    if wiring.moving is not None:
        watch.departures.lane = wiring.moving.turns.lane
    running = (watch.run(), Follower(lines, read, clock).run(), Vigil(lines, clock).run())
    return Second(stand_in(needs_of(named, theirs, wiring), main, lines, degrader), lines, running)


def _seen(gate: Gate, tally: Tally, now: float) -> WorkerView:
    """The gate's view, with how answers ended: a stop string ends one above it."""
    return structs.replace(view_of(gate, now), answered=tally.answers, failed=tally.answers_failed)


def journalled(settings: Settings, parts: Parts, wiring: Wiring) -> tuple[Archive | None, Wiring]:
    """The [journal] section: this worker's journal in its wiring, and the archive that reads everybody's."""
    section = settings.journal
    if not section.on or parts.shelf is None:
        return None, wiring
    archive = Archive(parts.shelf, parts.clock, section.grace_s)
    journal = Journal(parts.shelf, archive, parts.owner, parts.clock, parts.emit)
    journal.bytes_max, journal.grace_s = section.bytes_max, section.grace_s
    acquaint(journal, wiring.lines)
    return archive, replace(wiring, journal=journal)


def acquaint(journal: Journal, lines: Lines) -> None:
    """Let a journal know what answers here."""
    journal.release = lambda: release.digest if (release := lines.release()) else ""
    journal.kinds, journal.making = lines.kinds, partial(making, lines)


def wire(settings: Settings, parts: Parts) -> Wiring:
    """What the layers need, from the settings."""
    breaker, balance = settings.breaker, settings.balance

    def fresh_breaker() -> Breaker:
        return Breaker(
            breaker.failures_max,
            breaker.open_s,
            breaker.open_max_s,
            breaker.errors_share,
            breaker.window_s,
            breaker.volume_min,
        )

    def thinking_end(prompt_ids: list[int]) -> ThinkingEnd | None:
        return parts.dialect.thinking_end(prompt_ids)  # asked late: a simulated world has no dialect

    lines = Lines(parts.dialler, parts.clock, parts.emit, fresh_breaker)
    lines.affinity.blocks_max = balance.affinity_blocks if balance.affinity else 0
    lines.affinity_bound, lines.slow_start_s = balance.affinity_bound, balance.slow_start_s
    return Wiring(
        gate=gate_of(settings, parts, lines),
        lines=lines,
        clock=parts.clock,
        emit=parts.emit,
        moves_max=settings.failover.moves_max,
        moving=moving_of(settings, parts, lines),
        thinking_end=thinking_end,
    )


def gate_of(settings: Settings, parts: Parts, lines: Lines) -> Gate:
    """The [admission] and [tenants] sections.

    Raises:
        BadSettings: the tenants contradict each other.
    """
    admission = settings.admission
    lines.room.others, lines.room.changed = parts.board.others, parts.board.put
    return Gate(
        rules=Admission(
            admission.queue_max,
            admission.queue_wait_s,
            admission.queue_tokens_max,
            admission.queue_bytes_max,
            admission.first_token_s,
            admission.headroom,
        ),
        room=lines.room,
        clock=parts.clock,
        tenants=tenants_of(settings),
        quota=Quota(parts.ledger, Rate(admission.requests_per_s, admission.burst)),
        expectation=Expectation(admission.expected_tokens),
        throttle=Throttle(admission.throttle_factor, admission.throttle_s),
        draw=lambda: parts.bits(32) / 2**32,
        cached=lines.cached,
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
    turns.draw = lambda: parts.bits(32) / 2**32
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


def card_of(settings: Settings, parts: Parts, lines: Lines) -> Callable[[], ModelCard]:
    """The model's card. Asked for by every request, it is made anew only where the release is another one."""
    created_unix_s, model = int(parts.unix_s()), settings.model
    aliases = (*((name, False) for name in model.aliases), *((name, True) for name in model.aliases_thinking))
    told: tuple[Release, ...] = ()
    card: ModelCard | None = None

    def current() -> ModelCard:
        nonlocal told, card
        kinds = lines.kinds.all
        if card is None or kinds is not told:
            told = kinds
            card = ModelCard(
                name=model.name,
                digest=kinds[0].digest if kinds else "",
                kinds=kinds,
                context_tokens_max=parts.context_tokens_max,
                max_tokens_default=settings.request.max_tokens_default,
                created_unix_s=created_unix_s,
                aliases=aliases,
            )
        return card

    return current


def needs_of(settings: Settings, parts: Parts, wiring: Wiring, archive: Archive | None = None) -> Needs:
    """What the door needs."""
    lines, service = wiring.lines, stack(wiring)
    streams = None
    if wiring.journal is not None and archive is not None and parts.shelf is not None:
        streams = Streams(wiring.journal, archive, parts.shelf, service, parts.clock)

    def ready() -> tuple[bool, str]:
        slots = lines.slots()
        return slots > 0, f"{slots} slots" if slots else "no replica may serve at present"

    return Needs(
        service=service,
        streams=streams,
        linger_s=settings.journal.linger_s,
        descriptors=parts.descriptors,
        screen=screen(wiring.gate.tenants),
        access=parts.access,
        registry=parts.registry,
        screen_metrics=screen_metrics(wiring.gate.tenants, settings.gateway.metrics),
        glance=wiring.gate.glance,
        dialect=parts.dialect,
        card=card_of(settings, parts, lines),
        contract=promise,
        ready=ready,
        clock=parts.clock,
        unix_s=parts.unix_s,
        bits=parts.bits,
        emit=parts.emit,
        limits=limits_of(settings),
        cors=settings.gateway.cors_origins,
        takes_anybody=lambda key: not settings.gateway.open and wiring.gate.tenants.takes_anybody(key),
        tls=parts.tls,
    )


def limits_of(settings: Settings) -> Limits:
    """The [gateway] and [guard] sections in the door's words."""
    gateway, guard = settings.gateway, settings.guard
    return Limits(
        head_bytes_max=gateway.header_bytes_max,
        headers_max=gateway.headers_max,
        body_bytes_max=gateway.body_bytes_max,
        json_depth_max=gateway.json_depth_max,
        json_nodes_max=gateway.json_nodes_max,
        head_s=gateway.header_s,
        body_s=gateway.body_s,
        bytes_per_s_min=gateway.bytes_per_s_min,
        rate_grace_s=gateway.rate_grace_s,
        idle_s=gateway.idle_s,
        keep_s=gateway.keep_s,
        stall_s=gateway.unread_s,
        deadline_s=settings.request.deadline_s,
        connections_max=gateway.connections_max,
        connections_per_address_max=gateway.connections_per_address_max,
        connections_per_key_max=gateway.connections_per_key_max,
        stream_bytes_max=guard.stream_bytes_max,
        buffers_bytes_max=guard.buffers_bytes_max,
        descriptors_share=guard.descriptors_share,
    )
