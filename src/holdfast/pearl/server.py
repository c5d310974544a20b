"""The replica's process: one event loop that takes attempts from gateways, steps the core, and hands tokens back.

The core is synchronous and has the process to itself while it steps. Between two steps the loop looks round once: new
attempts, aborts and pings are served then, so an answered ping proves that the loop turns, and an abort frees its slot at
the next step. All tokens of a step that belong to one connection go down in one frame and one write.

A connection that sends garbage, opens too many streams or does not read what it is sent ends alone; its attempts are
aborted and the others notice nothing. A core whose work is done by another process (RemoteCore) is stepped when it has
something to give, and its pings are answered when that process shows a sign of life. An exception out of the core is not
caught: state that failed can't be trusted, the process ends, and gateways continue its answers elsewhere.
"""

import asyncio
import itertools
import logging
import os
import socket
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from msgspec import Struct, structs

from holdfast.domain.fault import BadRequest, EngineRefused
from holdfast.domain.ports import Clock, Core, Produced, RemoteCore
from holdfast.domain.replica import Load
from holdfast.domain.wire import (
    VERSION,
    Abort,
    Failed,
    Hello,
    Ping,
    Pong,
    Submit,
    Upward,
    Welcome,
    WireFault,
    item,
)
from holdfast.pearl.connection import HUNG_UP, Connection
from holdfast.pearl.exposition import Exposition, Identity, Tally
from holdfast.pearl.pulse import TURN_S, Pulse
from holdfast.policy.batching import Window

_LOG = logging.getLogger("holdfast.replica")
_SPIN_S = 0.001  # wait after a step that made nothing and counted nothing, lest a stuck core burn the processor
_FAREWELL_S = 0.5  # for the last bytes to go out


class ServerOptions(Struct, frozen=True, kw_only=True):
    """Limits and identity of a replica's server; seconds and bytes as the names say."""

    replica: str
    boot: str
    context_tokens_max: int
    streams_max: int = 1024  # on one connection
    connections_max: int = 256
    unsent_bytes_max: int = 1024 * 1024  # a connection that leaves more unread is closed
    hello_s: float = 10.0  # a connection that says nothing is closed
    still_s_max: float = 10.0  # loop or step standing still for longer: not healthy
    pause_s: float = 0.0  # from step to step; only scripted cores have one
    batch_window_s: float = 0.0  # an idle core waits so long for more answers that nobody reads as they come


Tap = Callable[[asyncio.Protocol], asyncio.Protocol]  # puts something between a socket and its connection, for drills


@dataclass(slots=True)
class _Attempt:
    connection: Connection
    stream: int
    prompt_tokens: int
    whole: bool = False  # nobody reads it as it comes
    begun: bool = False


class ReplicaServer:
    """Serves one core on one listening socket until it is drained."""

    def __init__(
        self,
        core: Core,
        clock: Clock,
        options: ServerOptions,
        tap: Tap | None = None,
        last_words: AbstractContextManager[object] | None = None,
    ) -> None:
        self.tally = Tally()
        self.pulse = Pulse(clock.now(), options.still_s_max)
        self._core = core
        self._tap = tap
        self._last_words = last_words or nullcontext()
        self._clock = clock
        self._options = options
        self._who = Identity(replica=options.replica, boot=options.boot, pid=os.getpid(), release=core.release())
        self._exposition = Exposition(self._who, self.tally, self.load, self.complaint)
        self._tickets = itertools.count(1)
        self._attempts: dict[int, _Attempt] = {}
        self._connections: set[Connection] = set()
        self._wake = asyncio.Event()
        self._empty = asyncio.Event()
        self._step = 0
        self._paced_steps, self._paced_s = 0, 0.0
        self._pacing_since: float | None = None  # when a step began that only makes tokens
        self._leave_at: float | None = None
        self._window = Window(options.batch_window_s)
        self._fresh: dict[int, _Attempt] = {}  # those that no step has seen yet
        self._remote = core if isinstance(core, RemoteCore) else None
        if self._remote is not None:
            self._remote.on_stir = self._wake.set

    async def serve(self, listener: socket.socket) -> None:
        """Serve until `drain` has run its course. An exception of the core ends it at once."""
        loop = asyncio.get_running_loop()

        def connect() -> asyncio.Protocol:
            connection = Connection(self, self._options.unsent_bytes_max, self._clock.now())
            return connection if self._tap is None else self._tap(connection)

        if listener.family == socket.AF_UNIX:
            server = await loop.create_unix_server(connect, sock=listener)
        else:
            server = await loop.create_server(connect, sock=listener)
        turning = asyncio.create_task(self._turn())
        try:
            with self._last_words:  # what ends the core is written down while the connections still stand
                await self._run()
            await self._say_farewell()
        finally:
            turning.cancel()
            server.close()
            for connection in tuple(self._connections):
                connection.cut("outlived its replica")

    def drain(self, grace_s: float) -> None:
        """Take nothing new, end when the last attempt has, at the latest after the grace. A second call ends it now."""
        now = self._clock.now()
        self._leave_at = now if self.pulse.draining else now + grace_s
        self.pulse.draining = True
        _LOG.info("draining: %d attempts under way, at most %.1f s", len(self._attempts), self._leave_at - now)
        for connection in tuple(self._connections):
            if connection.greeted:  # a Pong that nobody asked for: gateways know now, not at their next ping
                connection.send(Pong(0, self.load()))
                connection.flush()
        self._wake.set()

    def load(self) -> Load:
        """What the core says, and whether this process is leaving."""
        load = self._core.load()
        paced_s = round(self._paced_s, 6)
        return structs.replace(load, draining=self.pulse.draining, paced_steps=self._paced_steps, paced_s=paced_s)

    def complaint(self) -> str:
        """Why this replica should take no traffic; empty if it may. Any thread may ask."""
        return self.pulse.complaint(self._clock.now())

    def opened(self, connection: Connection) -> None:
        """See connection.Desk; likewise the next three."""
        self._connections.add(connection)
        self._empty.clear()
        if len(self._connections) > self._options.connections_max:
            connection.cut(f"is one more than the {self._options.connections_max} connections that are allowed")

    def heard(self, connection: Connection, frame: Upward) -> None:
        if isinstance(frame, Submit):
            self._take(connection, frame)
        elif isinstance(frame, Abort):
            ticket = connection.streams.pop(frame.stream, None)
            if ticket is not None:
                self._drop(ticket)
        elif isinstance(frame, Ping):
            if self._remote is None:
                connection.send(Pong(frame.nonce, self.load()))
            else:
                self._remote.vouch(partial(self._pong, connection, frame.nonce))
        elif isinstance(frame, Hello):
            self.tally.connections += 1
            if self._remote is None:
                self._welcome(connection)
            else:  # nobody is welcomed in the name of an engine that stands still
                self._remote.vouch(partial(self._welcome, connection))

    def asked(self, target: str) -> bytes:
        return self._exposition.answer(target)

    def gone(self, connection: Connection, why: str) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()
        if connection.greeted:
            self.tally.connections -= 1
        if why != HUNG_UP:
            self.tally.connections_cut += 1
            _LOG.warning("connection of %s ended: it %s", connection.who or "a stranger", why)
        for ticket in connection.streams.values():
            self._drop(ticket)
        connection.streams.clear()

    def _welcome(self, connection: Connection) -> None:
        who = self._who
        connection.send(Welcome(VERSION, who.boot, who.pid, who.release, self.load(), self._options.context_tokens_max))
        connection.flush()

    def _pong(self, connection: Connection, nonce: int) -> None:
        """Answer a ping that had to wait."""
        connection.send(Pong(nonce, self.load()))
        connection.flush()

    def _take(self, connection: Connection, frame: Submit) -> None:
        if frame.stream in connection.streams:
            raise WireFault(f"stream {frame.stream} was opened twice")
        try:
            if self.pulse.draining:
                raise EngineRefused("draining")
            if len(connection.streams) >= self._options.streams_max:
                raise EngineRefused(f"this connection has {self._options.streams_max} streams already")
            ticket = next(self._tickets)
            self._core.submit(ticket, frame.work())
        except EngineRefused as refusal:
            self.tally.refused += 1
            connection.send(Failed(frame.stream, "refused", refusal.why))
            return
        except BadRequest as bad:
            self.tally.refused += 1
            connection.send(Failed(frame.stream, "bad", bad.why, bad.param, bad.code))
            return
        self.tally.accepted += 1
        connection.streams[frame.stream] = ticket
        prompt_tokens = len(frame.prompt_ids) + len(frame.delivered_ids)
        attempt = _Attempt(connection, frame.stream, prompt_tokens, frame.whole)
        self._attempts[ticket] = self._fresh[ticket] = attempt
        self._wake.set()

    def _drop(self, ticket: int) -> None:
        del self._attempts[ticket]
        self._fresh.pop(ticket, None)
        self._core.abort(ticket)
        self.tally.aborted += 1
        self._wake.set()

    async def _run(self) -> None:
        """Step while there is work, look round between steps, sleep when idle."""
        clock, core, pause_s = self._clock, self._core, self._options.pause_s
        while not self._may_leave():
            load = core.load()
            self.pulse.see(load, clock.now())
            if not (load.running or load.queued or self._attempts):
                self._wake.clear()
                self._pacing_since = None
                if not self._may_leave():
                    await self._wake.wait()
                continue
            if self._remote is not None and not self._remote.stirred:
                self._wake.clear()
                if not self._may_leave():
                    await self._wake.wait()
                continue
            wait_s = self._window_s(load, clock.now())
            if wait_s > 0:
                await self._wait_for_more(wait_s)
                continue
            began = clock.now()
            self._fresh.clear()
            produced = core.step()
            now = clock.now()
            self.tally.step_s += now - began
            load = core.load()
            moved = self.pulse.see(load, now)
            self._step = load.step
            self._pace(produced, began)
            self._deliver(produced)
            if not (produced or load.running or load.queued):
                self._fail_forgotten()
            rest_s = began + pause_s - now
            await clock.sleep(max(rest_s, 0.0) if produced or moved else max(rest_s, _SPIN_S))

    def _window_s(self, load: Load, now: float) -> float:
        """How long to wait for more answers before the next step."""
        if self._options.batch_window_s <= 0:
            return 0.0
        whole = sum(attempt.whole for attempt in self._fresh.values())
        running = len(self._attempts) - len(self._fresh)
        hold = self._window.ask(now, running, whole, len(self._fresh) - whole, load.slots)
        owes = load.running + load.queued < len(self._attempts)  # an answer that the core has ready
        return 0.0 if owes or self.pulse.draining else hold.wait_s

    async def _wait_for_more(self, seconds: float) -> None:
        """Until an attempt comes or goes, the drain begins, or the time is up."""
        self._wake.clear()
        timer = asyncio.create_task(self._clock.sleep(seconds))
        timer.add_done_callback(lambda _: self._wake.set())
        try:
            await self._wake.wait()
        finally:
            timer.cancel()

    def _pace(self, produced: list[Produced], began: float) -> None:
        """Count the step before, if it only made tokens; take down whether this one does."""
        if self._pacing_since is not None:
            self._paced_steps += 1
            self._paced_s += began - self._pacing_since
        attempts = [self._attempts.get(one.ticket) for one in produced]
        talks = bool(attempts) and all(attempt is not None and attempt.begun for attempt in attempts)
        self._pacing_since = began if talks else None

    def _may_leave(self) -> bool:
        if self._leave_at is None:
            return False
        return not self._attempts or self._clock.now() >= self._leave_at

    def _deliver(self, produced: list[Produced]) -> None:
        touched: dict[Connection, None] = {}
        self.tally.batch_size = len(produced)
        for one in produced:
            attempt = self._attempts.get(one.ticket)
            if attempt is None:
                continue
            made = bool(one.ids) or one.finish is not None
            if made:
                self._count(attempt, one)
            if made or one.again:
                attempt.connection.items.append(item(attempt.stream, one))
                touched[attempt.connection] = None
            if one.finish is not None or one.fault:
                self._close(one.ticket, attempt)
            if one.fault:
                self.tally.failed += 1
                kind = "bad" if one.param else "refused" if one.refused else "lost"
                kind = "unrepeatable" if one.unrepeatable else kind
                attempt.connection.send(Failed(attempt.stream, kind, one.fault, one.param or None))
                touched[attempt.connection] = None
        for connection in touched:
            connection.flush(self._step)

    def _count(self, attempt: _Attempt, one: Produced) -> None:
        self.tally.tokens += len(one.ids)
        if not attempt.begun:
            attempt.begun = True
            self.tally.cached_tokens += one.cached_tokens
            self.tally.prefill_tokens += attempt.prompt_tokens - one.cached_tokens
        if one.finish is not None:
            self.tally.finished += 1

    def _close(self, ticket: int, attempt: _Attempt) -> None:
        del self._attempts[ticket]
        del attempt.connection.streams[attempt.stream]

    def _fail_forgotten(self) -> None:
        """An idle core that makes nothing and still owes finishes has lost attempts; gateways must not wait for ever."""
        for ticket, attempt in tuple(self._attempts.items()):
            self._close(ticket, attempt)
            self.tally.failed += 1
            attempt.connection.send(Failed(attempt.stream, "lost", "the engine ended this answer without a finish"))
        for connection in tuple(self._connections):
            connection.flush()

    async def _turn(self) -> None:
        """Show that the loop turns, end connections that never introduce themselves, and keep the drain's time."""
        while True:
            now = self._clock.now()
            self.pulse.turn(now)
            if self._remote is not None:  # it moves between two steps of ours: while a long prompt is read
                self.pulse.see(self._core.load(), now)
            for connection in tuple(self._connections):
                if not connection.greeted and now - connection.opened_at > self._options.hello_s:
                    connection.cut(f"said no Hello in {self._options.hello_s:g} s")
            if self._leave_at is not None and now >= self._leave_at:
                self._wake.set()
            await self._clock.sleep(TURN_S)

    async def _say_farewell(self) -> None:
        """Fail what outlived the grace, and give the last bytes a moment to go out."""
        for ticket, attempt in tuple(self._attempts.items()):
            self._core.abort(ticket)
            self._close(ticket, attempt)
            self.tally.failed += 1
            attempt.connection.send(
                Failed(attempt.stream, "lost", f"{self._who.replica} has left: its drain time is over")
            )
        for connection in tuple(self._connections):
            connection.flush()
            connection.close()
        if self._connections:
            patience = asyncio.create_task(self._clock.sleep(_FAREWELL_S))
            empty = asyncio.create_task(self._empty.wait())
            await asyncio.wait({patience, empty}, return_when=asyncio.FIRST_COMPLETED)
            patience.cancel()
            empty.cancel()
