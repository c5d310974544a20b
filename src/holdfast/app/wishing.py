"""Wishing: what the commands drain, undrain and upgrade have in common.

They write a wish down, wake the supervisor, and watch what becomes of it. Ended by Ctrl-C they leave the wish in force.
"""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass

from holdfast.app.acts import write_down_if_it_can
from holdfast.app.children import wants
from holdfast.domain.replica import ReplicaState
from holdfast.domain.settings import Settings
from holdfast.domain.site import ProcessView, SiteView
from holdfast.domain.wish import Wishes
from holdfast.fleet.unwatched import unwatched
from holdfast.host import proc
from holdfast.host.clock import MonotonicClock
from holdfast.policy.wishes import Asked, Refused
from holdfast.store import snapshot, wishes
from holdfast.store.births import Births
from holdfast.store.folder import folder_of
from holdfast.store.lock import holder

POLL_S = 0.02


class _No(Exception):
    """The policy refuses; the file stays as it is."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.why)
        self.refused = refused


@dataclass
class Wisher:
    """One command's view of a site. `act` is what the audit log calls it."""

    settings: Settings
    act: str = "wish"

    def __post_init__(self) -> None:
        self.folder = folder_of(self.settings)
        self.clock = MonotonicClock()

    @property
    def supervised(self) -> bool:
        return holder(self.folder.lock) != 0

    def processes(self) -> list[ProcessView]:
        """What runs as far as anybody knows, and what the settings want besides."""
        view = snapshot.take(self.folder.site, SiteView)
        if view is not None and not self.supervised:
            view = unwatched(view, Births(self.folder.births).read(), proc.running_s)
        found = list(view.processes) if view is not None else []
        if not found:
            found = [
                ProcessView(name=one.child.name, role=one.role, state=ReplicaState.DOWN, why="", device=one.device)
                for one in wants(self.settings, self.folder)
            ]
        return found

    def process(self, name: str) -> ProcessView | None:
        return next((one for one in self.processes() if one.name == name), None)

    def wishes(self) -> Wishes:
        return wishes.read(self.folder.wishes)

    def wish(self, revise: Callable[[Wishes], Asked | Refused]) -> Asked | Refused:
        """Write it down and wake the supervisor.

        Raises:
            BadSettings: the state folder can't be had.
            OSError: the wish can't be written.
        """
        self.folder.make()
        asked: list[Asked] = []

        def decide(now: Wishes) -> Wishes:
            verdict = revise(now)
            if isinstance(verdict, Refused):
                raise _No(verdict)
            asked.append(verdict)
            return verdict.wishes

        try:
            wishes.change(self.folder.wishes, decide)
        except _No as no:
            return no.refused
        write_down_if_it_can(self.folder, self.act, names=" ".join(asked[0].names), why=asked[0].why)
        pid = holder(self.folder.lock)
        if pid:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)
        return asked[0]

    def away(self) -> list[str]:
        """Whom a command does not wait for, and why: nobody here can bring back an engine that runs elsewhere."""
        return [f"Not waited for: {one.name}, which {one.why}" for one in self.processes() if one.away]

    def watch(self, seen: Callable[[float], bool], patience_s: float) -> float | None:
        """Poll until `seen`, which is told how many seconds have passed. Returns that; None when it took too long.

        While the start of a replica comes further, the patience begins anew: a large model loads for many minutes. That one
        waits for an engine elsewhere is no progress.
        """
        return asyncio.run(self._watch(seen, patience_s))

    async def _watch(self, seen: Callable[[float], bool], patience_s: float) -> float | None:
        began = moved_at = self.clock.now()
        stages: set[str] = set()
        while True:
            now = self.clock.now()
            if seen(now - began):
                return now - began
            fresh = {f"{one.name}: {one.stage}" for one in self.processes() if one.stage and not one.away} - stages
            if fresh:
                stages, moved_at = stages | fresh, now
            if now - moved_at > patience_s:
                return None
            await self.clock.sleep(POLL_S)
