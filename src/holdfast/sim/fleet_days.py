"""Plans that are played again and again: a fleet's bad day, a storm over a small site, too much of everything, one greedy tenant.

Loads are in multiples of what the replicas can do. What clients do after a refusal is taken from life: the openai SDK tries
three times, four in ten obey Retry-After, three in ten come back after a tenth of a second, the rest gives up.
"""

from holdfast.policy.admission import Admission
from holdfast.policy.ladder import Rules
from holdfast.sim.fleet_plan import Engines, Flow, Illness, Outage, Plan

TOKENS = 64.0
PROMPT = 96.0  # tokens, on average
OBEYS, HAMMERS, TRIES = 0.4, 0.3, 3

STORM_BEGINS_S, STORM_ENDS_S, STORM_KILLS_S, STORM_HEALS_S, STORM_END_S = 5.0, 65.0, 15.0, 45.0, 96.0
DAY_S = 21.0  # the last who ask beside the greedy one have their answers, or miss their deadline
BURST, FAILURE, GREED = (3.0, 6.0), (8.0, 11.0), (12.5, 15.5)  # of the bad day, from and to, in seconds


ROOMY = Admission(
    queue_max=65_536, tokens_max=100_000_000, bytes_max=1 << 30
)  # the defaults are for ten replicas, not 1,000


def tenants(count: int) -> tuple[str, ...]:
    """So many names."""
    return tuple(f"tenant-{number}" for number in range(count))


def bad_day(replicas: int = 1000, count: int = 1000, seed: int = 0, gateways: int = 4) -> Plan:
    """Seven tenths of what the fleet can do all day long; a burst to twice of it, 30 % of the replicas dying at once, and a
    tenant that asks for as much as the whole fleet can do. With 1,000 replicas of 64 slots the burst is 100,000 requests/s."""
    engines = Engines(replicas=replicas, slots=64)
    capacity = engines.capacity_per_s(TOKENS, PROMPT)
    names = tenants(count)

    def flow(name: str, load: float, span: tuple[float, float], who: tuple[str, ...] = names) -> Flow:
        return Flow(
            name=name,
            tenants=who,
            per_s=load * capacity,
            start_s=span[0],
            end_s=span[1],
            prompt_tokens=(64, 128),
            tokens=TOKENS,
            obeys=OBEYS,
            hammers=HAMMERS,
            tries_max=TRIES,
        )

    flows = (
        flow("everybody", 0.7, (0.0, DAY_S)),
        flow("burst", 1.3, BURST),
        flow("greedy", 1.0, GREED, ("greedy",)),
    )
    outages = (Outage(FAILURE[0], 0.3, FAILURE[1]),)
    illness = Illness(7.0, 12.0, max(1, replicas // 50), 0.2)
    return Plan(
        seed=seed,
        seconds=DAY_S,
        gateways=gateways,
        engines=engines,
        flows=flows,
        outages=outages,
        illness=illness,
        ladder=Rules(),
        admission=ROOMY,
        slow_start_s=2.0,
    )


def storm(seed: int, tries_max: int = TRIES, end_s: float = STORM_END_S) -> Plan:
    """Three replicas, two workers: three times too much for a minute, one replica dead for half of it, then 0.8 again."""
    engines = Engines(replicas=3, slots=8)
    capacity = engines.capacity_per_s(20.0, 32.0)

    def flow(name: str, load: float, start_s: float, end_s: float) -> Flow:
        return Flow(
            name=name,
            tenants=tenants(10),
            per_s=load * capacity,
            start_s=start_s,
            end_s=end_s,
            prompt_tokens=(1, 64),
            tokens=20.0,
            max_tokens=64,
            deadline_s=2.0,
            obeys=OBEYS,
            hammers=HAMMERS,
            tries_max=tries_max,
        )

    flows = (
        flow("before", 0.8, 0.0, STORM_BEGINS_S),
        flow("storm", 3.0, STORM_BEGINS_S, STORM_ENDS_S),
        flow("after", 0.8, STORM_ENDS_S, end_s),
    )
    outages = (Outage(STORM_KILLS_S, 1 / 3, STORM_HEALS_S),)
    return Plan(seed=seed, seconds=end_s, gateways=2, engines=engines, flows=flows, outages=outages)


def flood(load: float, engines: Engines, count: int, seconds: float, spread: float = 0.0) -> Plan:
    """So many times what the engines can do, all the time, with deadlines of two seconds; nobody comes back. `spread`: how
    much the lengths of answers vary."""
    tokens = 32.0
    flow = Flow(
        name="flood",
        tenants=tenants(count),
        per_s=load * engines.capacity_per_s(tokens, 32.0),
        prompt_tokens=(1, 63),
        tokens=tokens,
        spread=spread,
        max_tokens=128,
        deadline_s=2.0,
    )
    return Plan(seconds=seconds, engines=engines, flows=(flow,), expected_tokens=32)


def greed(alone: bool, seconds: float = 30.0, seed: int = 0, headroom: float = 0.04, used: float = 0.7) -> Plan:
    """Nine tenants at 0.7 of their shares; beside them, unless they are alone, one that asks for ten times its own, in answers
    twice as long. A step takes the same however full a batch is, so that what the nine notice is the greedy one's slots."""
    engines = Engines(replicas=3, slots=128, batch_cost=0.0)
    share = engines.capacity_per_s(50.0, 96.0) / 10

    def flow(name: str, who: tuple[str, ...], per_s: float, tokens: float) -> Flow:
        return Flow(
            name=name, tenants=who, per_s=per_s, prompt_tokens=(64, 128), tokens=tokens, max_tokens=400, deadline_s=10.0
        )

    normal = flow("normal", tenants(9), 9 * used * share, 50.0)
    greedy = flow("greedy", ("greedy",), 10 * share / 2, 100.0)
    flows = (normal,) if alone else (normal, greedy)
    rules = Admission(headroom=headroom)
    return Plan(seed=seed, seconds=seconds, engines=engines, flows=flows, expected_tokens=50, admission=rules)
