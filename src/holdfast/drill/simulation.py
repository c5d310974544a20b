"""One seed, one world: faults on and safety, then healed and everything must finish. The same seed tells the same story.

A short story is one burst. A long one is an hour: bursts of load and faults with quiet between them, in which the same code
runs with coarse periods.
"""

import asyncio
import gc
from random import Random

from msgspec import Struct, structs

from holdfast.domain.request import Generation, Sampling
from holdfast.drill.simulation_check import Violated
from holdfast.drill.simulation_crowd import Client
from holdfast.drill.simulation_nemesis import Nemesis
from holdfast.drill.simulation_plant import Plant
from holdfast.drill.simulation_site import POISONS, SimSite
from holdfast.sim.clock import Stuck
from holdfast.sim.lives import nobody, run_seeded

SETTLE_S = 120.0  # so long after the healing all must be as it is wanted
HOUR_S = 3600.0


class Story(Struct, frozen=True, kw_only=True):
    """How long a world lasts, and how busy it is."""

    faults_s: float = 12.0
    clients: int = 10
    tokens_max: int = 120
    every_s: float = 1.2
    bursts: int = 1
    hour: bool = False


SHORT = Story()
HOUR = Story(bursts=4, hour=True, clients=8, tokens_max=60, faults_s=7.0)


class Report(Struct, kw_only=True):
    """What became of one seed. `violation` is empty when every invariant held."""

    seed: int
    violation: str = ""
    simulated_s: float = 0.0
    answers: int = 0
    tokens: int = 0
    moves: int = 0
    resumed: int = 0
    faults: dict[str, int] = {}
    refusals: dict[str, int] = {}
    events: dict[str, int] = {}
    log: list[str] = []


def play(seed: int, story: Story = SHORT, plant: Plant | None = None) -> Report:
    """Play one seed to its end, or to its first violation."""
    report = Report(seed=seed)
    collecting = gc.isenabled()
    gc.disable()  # a collector that runs when it likes would let the dead speak, and no two runs would be equal
    try:
        run_seeded(lambda: _world(seed, story, plant or Plant(), report), seed)
    except (Violated, Stuck) as bad:
        report.violation = str(bad)
    finally:
        if collecting:
            gc.enable()
    return report


async def _world(seed: int, story: Story, plant: Plant, report: Report) -> None:
    random = Random(f"world {seed}")
    site = SimSite(random, plant)
    nemesis = Nemesis(site, Random(f"nemesis {seed}"), story.every_s)
    loop = asyncio.get_running_loop()

    def crashed(_: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if error is not None or "never retrieved" in str(context.get("message")):
            site.check.violated(f"a part of the world crashed: {error!r} {context.get('message')}")

    loop.set_exception_handler(crashed)
    try:
        site.boss.hire()
        for burst in range(story.bursts):
            await _settle(site, "before")
            await _burst(site, nemesis, story, burst, Random(f"clients {seed} {burst}"))
            if story.hour:
                site.hush()
                await site.clock.sleep(max(60.0, (burst + 1) * HOUR_S / story.bursts - site.clock.now()))
                site.check.raise_found()
                site.rouse()
    finally:
        _fill(report, site, nemesis)


async def _burst(site: SimSite, nemesis: Nemesis, story: Story, burst: int, random: Random) -> None:
    clients = [_client(site, random, f"a{burst}-{n}", story) for n in range(story.clients)]
    tasks = [
        asyncio.get_running_loop().create_task(one.run(random.uniform(0, 0.8 * story.faults_s)), context=nobody())
        for one in clients
    ]
    await nemesis.run(story.faults_s)
    nemesis.heal()
    waited = asyncio.gather(*tasks)
    while not waited.done():
        await asyncio.wait({waited}, timeout=0.5)
        site.check.raise_found()
    waited.result()
    await _settle(site, "after the healing")
    await site.clock.sleep(site.ground.settings.journal.linger_s + 0.5)  # those whose clients went away linger on
    site.check.quiet()
    site.check.raise_found()


async def _settle(site: SimSite, when: str) -> None:
    """I7: the site comes to be as it is wanted."""
    end = site.clock.now() + SETTLE_S
    while (why := site.settled()) and site.clock.now() < end:
        await site.clock.sleep(0.1)
        site.check.raise_found()
    if why:
        site.check.violated(f"I7: {when}, after {SETTLE_S:.0f} s: {why}")
    site.check.raise_found()


def _client(site: SimSite, random: Random, name: str, story: Story) -> Client:
    """Somebody with a prompt of their own, so that no two answers are alike."""
    prompt = [random.randrange(1, 7000) for _ in range(random.choice((3, 10, 40, 200)))]
    if random.random() < 0.05:
        prompt[-1] = random.choice(list(POISONS))
    loyal = random.random() < 0.75
    stops = (1,) if random.random() < 0.3 else ()
    asked = Generation(
        id=name,
        prompt_ids=prompt,
        max_tokens=random.randint(1, story.tokens_max),
        seed=random.randrange(1 << 30),
        stop_ids=stops,
    )
    if site.ground.plant.kinds and asked.seed % 2:
        asked = structs.replace(asked, sampling=Sampling(temperature=0))
    return Client(
        site,
        Random(random.random()),
        asked,
        loyal,
        fickle=0.02 if loyal and random.random() < 0.3 else 0.0,
        hasty=loyal and random.random() < 0.15,
        quits_after=random.randint(0, 40) if random.random() < 0.1 else -1,
    )


def _fill(report: Report, site: SimSite, nemesis: Nemesis) -> None:
    check = site.check
    report.simulated_s = site.clock.now()
    report.answers, report.tokens, report.moves, report.resumed = (
        check.answers,
        check.tokens,
        check.moved,
        check.resumed,
    )
    report.faults, report.refusals, report.log = dict(nemesis.done), dict(check.faults), nemesis.log
    report.events = dict(site.ground.events)
