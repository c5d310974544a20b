"""Processes without processes: who runs what in a simulated world, and in which order.

Every callback of the loop belongs to a Life, a simulated process, by a context variable that tasks inherit. The loop runs the
callbacks of the living only. Those of a frozen life wait until it thaws, whatever time it is then, which is what SIGSTOP does;
those of a dead one never run again, no `finally` and no `except` among them, which is what SIGKILL does. Fakes deliver into a
life by scheduling in its context, never by calling.

What becomes ready in one instant runs in an order drawn from the seed: asyncio promises an order of its own only within one
callback's consequences, and real sockets promise none at all, so any order must do. Equal seeds give equal orders.
"""

import asyncio
import gc
import sys
import warnings
from collections.abc import Callable, Coroutine
from contextvars import Context, ContextVar, copy_context
from random import Random
from typing import Any, TypeVar, TypeVarTuple

from holdfast.sim.clock import Stuck, VirtualLoop

T = TypeVar("T")
Ts = TypeVarTuple("Ts")
CLEARING_TURNS = 30
SPINS_MAX = 20_000  # turns in one instant: more is a livelock


class Life:
    """One simulated process. Its tasks are kept, so that nothing of a dead one is ever cleaned up behind its back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = False
        self.tasks: list[asyncio.Task[Any]] = []
        self._frozen = False
        self._parked: list[_Ready] = []
        self.on_crash: Callable[[BaseException], None] = lambda error: None  # a task ended with what nobody expected
        self.context = copy_context()
        self.context.run(_LIFE.set, self)

    @property
    def frozen(self) -> bool:
        return self._frozen

    def spawn(self, work: Coroutine[Any, Any, T], name: str = "") -> asyncio.Task[T]:
        """Run a coroutine as this process."""
        context = self.context.copy()
        loop = asyncio.get_running_loop()
        task = loop.create_task(work, name=name or self.name, context=context)
        self.tasks = [one for one in self.tasks if self.dead or not one.done()]
        self.tasks.append(task)
        task.add_done_callback(self._ended, context=nobody())
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.on_crash(error)

    def freeze(self) -> None:
        """SIGSTOP."""
        self._frozen = True

    def thaw(self) -> None:
        """SIGCONT: everything that became due meanwhile is due now."""
        self._frozen = False
        parked, self._parked = self._parked, []
        loop = asyncio.get_running_loop()
        assert isinstance(loop, SimLoop)
        loop.ready(parked)

    def kill(self) -> None:
        """SIGKILL."""
        self.dead = True
        self._parked.clear()

    def park(self, one: "_Ready") -> None:
        """Keep what is due for a frozen life."""
        if not self.dead:
            self._parked.append(one)


_LIFE: ContextVar[Life | None] = ContextVar("life", default=None)
_Ready = tuple[Life | None, asyncio.Handle, asyncio.TimerHandle | None]


def nobody() -> Context:
    """A context that belongs to no life: what runs in it is the world itself."""
    context = copy_context()
    context.run(_LIFE.set, None)
    return context


class SimLoop(VirtualLoop):
    """A loop in virtual time that asks whose turn it may be, and shuffles what is ready in one instant."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._waiting: list[_Ready] = []
        self._armed = False
        self.turns = 0
        self.livelock = False
        self._moment, self._spins = 0.0, 0
        self.lifted = False  # once lifted, the dead run too: only for clearing up when all is over
        super().__init__()

    def call_soon(
        self, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.Handle:
        """See asyncio."""
        handle = asyncio.Handle(callback, args, self, context)
        self.ready([(_LIFE.get() if context is None else context.get(_LIFE), handle, None)])
        return handle

    def call_at(
        self, when: float, callback: Callable[[*Ts], object], *args: *Ts, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """See asyncio."""
        life = _LIFE.get() if context is None else context.get(_LIFE)
        handle = asyncio.Handle(callback, args, self, context)
        own: list[asyncio.TimerHandle] = []
        now = self.time()
        if when > now:  # a moment that has not come is never now, however near: who waits for it sees time move
            when = max(round(when + 5e-10, 9), now + 2e-9)
        timer = super().call_at(when, self._due, life, handle, own, context=context)
        own.append(timer)
        return timer

    def ready(self, ones: list[_Ready]) -> None:
        """Let these run in the next turn."""
        self._waiting += ones
        if not self._armed:
            self._armed = True
            super().call_soon(self._turn)

    def _due(self, life: Life | None, handle: asyncio.Handle, own: list[asyncio.TimerHandle]) -> None:
        self.ready([(life, handle, own.pop())])

    def _turn(self) -> None:
        self._armed = False
        batch, self._waiting = self._waiting, []
        if len(batch) > 1:
            self._random.shuffle(batch)
        self.turns += 1
        if self.time() > self._moment:
            self._moment, self._spins = self.time(), 0
        self._spins += 1
        if self._spins > SPINS_MAX and not self.lifted:
            self.livelock = True
            self.stop()
        for one in batch:
            life, handle, timer = one
            if handle.cancelled() or (timer is not None and timer.cancelled()):
                continue
            if life is None or self.lifted or not (life.dead or life.frozen):
                handle._run()
            elif not life.dead:
                life.park(one)


def run_seeded(story: Callable[[], Coroutine[Any, Any, T]], seed: int) -> T:
    """Run a story in virtual time, in the order that the seed gives.

    Raises:
        Stuck: it can never end.
    """
    loop = SimLoop(Random(seed))
    try:
        asyncio.set_event_loop(loop)
        return loop.run_until_complete(loop.create_task(story(), context=nobody()))
    except RuntimeError as error:
        if not loop.livelock:
            raise
        raise Stuck(f"at {loop.time():.3f} s: time stands still while callbacks go round and round") from error
    finally:
        _clear_up(loop)
        asyncio.set_event_loop(None)
        loop.close()


def _clear_up(loop: SimLoop) -> None:
    """Everybody's tasks, those of the dead too, are cancelled: nothing is left for the garbage collector to complain of.

    What the dead still have to say about it is heard by nobody.
    """
    loop.lifted = True
    loop.set_exception_handler(lambda _, __: None)
    hook, sys.unraisablehook = sys.unraisablehook, lambda _: None
    try:
        with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # coroutines of the dead end unawaited
            for _ in range(CLEARING_TURNS):
                left = asyncio.all_tasks(loop)
                if not left:
                    break
                for task in left:
                    task.cancel()
                loop.run_until_complete(asyncio.sleep(0))
            gc.collect()
    finally:
        sys.unraisablehook = hook
