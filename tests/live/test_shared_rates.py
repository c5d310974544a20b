"""Rates of several machines through a real store that dies, freezes and comes back."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis_process import FOUND, RedisProcess

from holdfast.domain.board import Rate
from holdfast.domain.event import Event, SharingFound, SharingLost
from holdfast.host.clock import MonotonicClock
from holdfast.policy.token_bucket import OwnLedger, TokenBucket
from holdfast.store.shared_ledger import HELD_ROUNDS, ROUND_S, Here, SharedLedger

pytestmark = pytest.mark.skipif(FOUND is None, reason="redis-server is not installed")
CLOCK = MonotonicClock()
RULE = Rate(2000.0, 20.0)
AHEAD = 1.5 * HELD_ROUNDS * ROUND_S * RULE.per_s  # what may be leased at once beyond the rate


class Machine:
    """One machine's ledger, running."""

    def __init__(self, name: str, url: str, memory: Path | None = None) -> None:
        self.events: list[Event] = []
        self.here = Here(site="test", machine=name, worker=f"{name}:1", memory=memory)
        self.ledger = SharedLedger(url, OwnLedger(), self.events.append, CLOCK, self.here)
        self.running = asyncio.ensure_future(self.ledger.run())
        self.taken = 0
        self.asked: list[float] = []

    async def stop(self) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)

    async def hammer(self, per_s: float, seconds: float) -> None:
        """Ask that often, and count what was let by. An ask that takes long would show: it never waits."""
        began, self.asked, self.taken = CLOCK.now(), [], 0
        while (now := CLOCK.now()) < began + seconds:
            while len(self.asked) < (now - began) * per_s:
                self.taken += self.ledger.take("requests/site", 1.0, RULE, now) == 0
                self.asked.append(now)
            await CLOCK.sleep(0.001)

    async def until(self, count: int, kind: type[Event]) -> None:
        while sum(isinstance(event, kind) for event in self.events) < count:
            await self.breathe()

    async def until_shared_by(self, count: int) -> None:
        while f"machines: {count}," not in self.ledger.sharing:
            await self.breathe()

    async def breathe(self) -> None:
        """A moment for the others; what ended our own run is raised here."""
        if self.running.done():
            self.running.result()
        await CLOCK.sleep(0.005)


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisProcess]:
    process = RedisProcess(tmp_path)
    process.start()
    yield process
    process.kill()


@asynccontextmanager
async def machines(url: str, *names: str) -> AsyncIterator[list[Machine]]:
    made = [Machine(name, url) for name in names]
    try:
        for one in made:
            await one.until_shared_by(len(made))
        yield made
    finally:
        for one in made:
            await one.stop()


def play(story: Callable[[], Awaitable[None]]) -> None:
    async def run() -> None:
        async with asyncio.timeout(60):
            await story()

    asyncio.run(run())


async def both(pair: list[Machine], per_s: tuple[float, float], seconds: float) -> float:
    """Hammer from both. Returns what was let by, by what one bucket would have let by of the very same asks.

    So a machine that is too busy to ask steadily is no error of the ledger's. It checks that the rate was never exceeded.
    """
    began = CLOCK.now()
    await asyncio.gather(*(one.hammer(rate, seconds) for one, rate in zip(pair, per_s, strict=True)))
    taken = sum(one.taken for one in pair)
    assert taken <= RULE.per_s * (CLOCK.now() - began) + RULE.burst + AHEAD
    bucket = TokenBucket(RULE.per_s, RULE.burst)
    return taken / sum(bucket.take(now) == 0 for now in sorted(pair[0].asked + pair[1].asked))


@pytest.mark.parametrize("per_s", [(3000.0, 3000.0), (4000.0, 0.0), (4000.0, 500.0)])
def test_all_machines_together_get_the_rate_however_the_load_falls(redis, per_s):
    async def story() -> None:
        async with machines(redis.url, "a", "b") as pair:
            assert await both(pair, per_s, 2.0) > 0.85
            assert pair[1].taken >= 0.7 * min(len(pair[1].asked), sum(one.taken for one in pair) / 2), (
                "the one that asks less gets what it asks"
            )

    play(story)


def test_a_store_that_is_killed_and_comes_back_changes_little(redis):
    async def story() -> None:
        async with machines(redis.url, "a", "b") as pair:
            await both(pair, (3000.0, 3000.0), 0.5)
            redis.kill()
            assert await both(pair, (3000.0, 3000.0), 2.0) > 0.85
            for one in pair:
                assert isinstance(one.events[0], SharingFound)
                assert isinstance(one.events[-1], SharingLost)
                assert one.events[-1].why.endswith("; this machine keeps to 1/2 of each rate")
                assert one.ledger.sharing.startswith("each machine for itself, at 1/2 of each rate: 127.0.0.1:")
            redis.start()
            for one in pair:
                await one.until_shared_by(2)
                assert isinstance(one.events[-1], SharingFound)
            assert await both(pair, (3000.0, 3000.0), 2.0) > 0.85
            assert pair[0].ledger.sharing == f"machines: 2, through 127.0.0.1:{redis.port}"

    play(story)


def test_a_store_that_freezes_makes_no_request_wait(redis):
    async def story() -> None:
        async with machines(redis.url, "a", "b") as pair:
            await both(pair, (3000.0, 3000.0), 0.5)
            redis.freeze()
            assert await both(pair, (3000.0, 3000.0), 2.0) > 0.85
            redis.thaw()
            for one in pair:
                await one.until_shared_by(2)
                assert isinstance(one.events[-1], SharingFound)

    play(story)


def test_a_worker_that_starts_without_the_store_remembers_how_many_share(redis, tmp_path):
    async def story() -> None:
        memory = tmp_path / "machines.json"
        first, second = Machine("a", redis.url, memory), Machine("b", redis.url)
        await first.until_shared_by(2)
        await first.stop()
        await second.stop()
        redis.kill()
        late = Machine("a", redis.url, memory)
        rule = Rate(10.0, 40.0)
        now = CLOCK.now()
        assert [late.ledger.take("a", 10, rule, now) for _ in range(3)] == [0, 0, pytest.approx(2.0)], "half of both"
        await late.until(1, SharingLost)
        await late.stop()

    play(story)


def test_a_quota_is_one_for_all_and_what_is_not_used_goes_back(redis):
    async def story() -> None:
        quota = Rate(0.01, 100_000.0)
        async with machines(redis.url, "a", "b") as (a, b):

            async def draw(machine: Machine) -> int:
                """Take 4000 at a time until refused several times in a row, with time for leases in between."""
                taken = refused = 0
                while refused < 20:
                    wait_s = machine.ledger.take("tokens/t", 4000.0, quota, CLOCK.now())
                    taken, refused = (taken + 4000, 0) if wait_s == 0 else (taken, refused + 1)
                    await CLOCK.sleep(0.01)
                return taken

            first = await draw(a)
            rest = await draw(b)
            assert first + rest <= 100_000 + 4000, "without a lease yet, one got by on its share"
            assert first + rest > 80_000, "what nobody else wants can be had by one"
            a.ledger.give("tokens/t", 40_000.0, quota, CLOCK.now())
            while b.ledger.take("tokens/t", 20_000.0, quota, CLOCK.now()) > 0:
                await CLOCK.sleep(0.01)

    play(story)
