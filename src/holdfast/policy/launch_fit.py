"""How many GPUs a model takes, how its weights are spread over them, and whether there is room left to answer.

    usable  = share x memory               (vLLM's default share is 0.92)
    weights = bytes / GPUs                 tensor parallel; experts spread likewise
            = (dense + routed / GPUs)      data parallel: attention and dense layers on every GPU, experts spread
    rest    = usable - weights - overhead  (activations, graphs, NCCL: 6 GiB for the big ones, 2.5 GiB for the others)
    tokens  = rest / cache of one token    MLA's latent is whole on each GPU of a tensor-parallel group; else it is shared out

Everything in bytes: makers' "GB" of memory are nearly GiB, those of weights are 10^9. The cache of V3.2 (48,068 bytes a token
with its index) and V4 (3,850 a token, and several GiB whatever the context) is that of vLLM's 8-bit layouts. All of it is
estimated: a site that names [engine] gpus is told that a model hardly fits, and may try.
"""

from collections.abc import Sequence

from msgspec import Struct

from holdfast.domain.engine import StartFailure
from holdfast.domain.replica import StartFault
from holdfast.policy.launch_plan import Gpu
from holdfast.policy.model_facts import DISTILLS, GIB, Family, ModelFacts, gib

SHARE, SHARE_HIGH = 0.92, 0.95
OVERHEAD_BIG, OVERHEAD = 6 * GIB, int(2.5 * GIB)
BIG_BYTES = 100 * 10**9
V4_FIXED = int(6.5 * GIB)
V4 = (Family.V4_FLASH, Family.V4_PRO, Family.V41)
CACHE = {Family.V32: 48_068, Family.V4_FLASH: 3_850, Family.V4_PRO: 5_500, Family.V41: 3_850}
DENSE_SHARE = {
    Family.V32: 0.026,
    Family.V4_FLASH: 0.05,
    Family.V4_PRO: 0.03,
}  # what every GPU holds when data is parallel
COUNTS = (1, 2, 4, 8, 16)
CONTEXTS = 8  # a replica should hold so many answers at their longest
WITHOUT_FP8 = (
    "A100",
    "A800",
    "A40",
    "A30",
    "A10",
    "A16",
    "A2 ",
    "A6000",
    "A5000",
    "A4000",
    "V100",
    "T4",
    "RTX 30",
    "RTX 20",
    "P100",
    "MI100",
    "MI210",
    "MI250",
)
FP8_FROM, HOPPER = (8, 9), (9, 0)
NOT_HOPPER = ("L40", "L20", "L4", "RTX", "A6000")


class Spread(Struct, frozen=True):
    """How one engine uses its GPUs: each model copy over `tensor` of them, `data` copies of what isn't experts."""

    tensor: int = 1
    data: int = 1
    experts: bool = False  # experts lie whole on one GPU each


class Fit(Struct, frozen=True, kw_only=True):
    """A way that fits, as far as is known. `tokens` that its cache holds; 0: not known."""

    spread: Spread
    share: float = SHARE
    tokens: int = 0
    why: str


def ways(facts: ModelFacts, count: int) -> list[Spread]:
    """The ways to use so many GPUs, the best first; none where the heads can't be shared out."""
    if count == 1:
        return [Spread()]
    found = []
    experts = facts.experts > 0
    if facts.family in DENSE_SHARE and count >= 4:
        found.append(Spread(data=count, experts=True))
    if not facts.heads or facts.heads % count == 0:
        found.append(Spread(tensor=count, experts=experts))
    return found


def fit(facts: ModelFacts, seen: Sequence[Gpu] | None, count: int, context: int) -> Fit | StartFailure:
    """The best way to use `count` GPUs for one engine, or why there is none. `seen`: what they are."""
    found = ways(facts, count)
    if not found:
        why = f"{facts.family} has {facts.heads} attention heads, which {count} GPUs can't share out evenly"
        return StartFailure(StartFault.SETTINGS, f"{why}: set [engine] gpus to 1, 2, 4 or 8")
    if seen is None or not facts.weights_bytes:
        last = found[-1]
        return Fit(
            spread=last, why="whether it fits is not known: " + ("no GPU was seen" if seen is None else "no weights")
        )
    refused = _can_not_compute(facts, seen)
    if refused is not None:
        return refused
    memory = min(one.memory_bytes for one in seen)
    for spread in found:
        for share in (SHARE, SHARE_HIGH):
            rest = _rest(facts, spread, memory, share)
            tokens = _tokens(facts, spread, rest)
            if tokens >= context:
                return Fit(spread=spread, share=share, tokens=tokens, why=_told(facts, spread, seen[0], rest, tokens))
    return _too_big(facts, found[-1], seen, context)


def fewest(facts: ModelFacts, seen: Sequence[Gpu], context: int) -> int:
    """The smallest number of these GPUs with room for CONTEXTS full contexts; else the one with most room; 0: it fits on none."""
    best, most = 0, 0
    for count in COUNTS:
        found = fit(facts, seen[:count], count, context) if count <= len(seen) else None
        if isinstance(found, Fit):
            held = found.tokens * found.spread.data
            if held >= CONTEXTS * context:
                return count
            if held > most:
                best, most = count, held
    return best


def _weights(facts: ModelFacts, spread: Spread) -> float:
    """Bytes on one GPU."""
    gpus = spread.tensor * spread.data
    if spread.data == 1:
        return facts.weights_bytes / gpus
    dense = DENSE_SHARE.get(facts.family, 0.05)
    return facts.weights_bytes * (dense + (1 - dense) / gpus)


def _rest(facts: ModelFacts, spread: Spread, memory: int, share: float) -> float:
    overhead = OVERHEAD_BIG if facts.weights_bytes > BIG_BYTES else OVERHEAD
    return share * memory - _weights(facts, spread) - overhead


def _tokens(facts: ModelFacts, spread: Spread, rest: float) -> int:
    """Of one GPU's cache, in which its own sequences stand."""
    each = CACHE.get(facts.family, facts.cache_bytes_per_token)
    if facts.family in V4:
        rest -= V4_FIXED
    if rest <= 0:
        return 0
    if not facts.mla and facts.family not in CACHE:
        each = each // min(spread.tensor, facts.heads_kv or 1)
    return int(rest / each) if each else 10**9


def _told(facts: ModelFacts, spread: Spread, gpu: Gpu, rest: float, tokens: int) -> str:
    count = spread.tensor * spread.data
    on = f"each of {count} GPUs" if count > 1 else "the GPU"
    room = f"{gib(_weights(facts, spread))} of weights on {on} ({gpu.name}, {gib(gpu.memory_bytes)})"
    more = f" on each, {tokens * spread.data:,} together" if spread.data > 1 else ""
    return f"{room}, about {gib(rest)} left for the cache: {tokens:,} tokens{more}"


def _can_not_compute(facts: ModelFacts, seen: Sequence[Gpu]) -> StartFailure | None:
    gpu = next((one for one in seen if not _has_fp8(one)), None)
    eight_bit = facts.quantised in ("fp8", "mxfp8", "mxfp4", "fp4") and facts.experts > 0
    if gpu is not None and eight_bit:
        fix = "take a build with 4-bit weights (AWQ) or a distilled model, or run it on Hopper or later"
        why = f"{gpu.name} does not compute in FP8, the numbers of {facts.family} ({facts.quantised})"
        return StartFailure(StartFault.DEVICE, f"{why}: {fix}")
    sparse = facts.family in CACHE
    old = next((one for one in seen if not _is_hopper(one)), None)
    if sparse and old is not None:
        why = f"{old.name} has no kernels for the sparse attention of {facts.family}"
        return StartFailure(StartFault.DEVICE, f"{why}: it runs on Hopper, Blackwell and MI300 or later")
    return None


def _has_fp8(gpu: Gpu) -> bool:
    if gpu.capability != (0, 0):
        return gpu.capability >= FP8_FROM
    return not any(name in f"{gpu.name} " for name in WITHOUT_FP8)


def _is_hopper(gpu: Gpu) -> bool:
    if gpu.capability != (0, 0):
        return gpu.capability >= HOPPER
    return _has_fp8(gpu) and not any(name in gpu.name for name in NOT_HOPPER)


def _too_big(facts: ModelFacts, spread: Spread, seen: Sequence[Gpu], context: int) -> StartFailure:
    gpu = min(seen, key=lambda one: one.memory_bytes)
    rest = _rest(facts, spread, gpu.memory_bytes, SHARE_HIGH)
    count = len(seen)
    where = (
        f"{count} x {gpu.name} ({gib(gpu.memory_bytes)} each)" if count > 1 else f"{gpu.name} ({gib(gpu.memory_bytes)})"
    )
    head = f"{facts.family} does not fit on {where}: {gib(_weights(facts, spread))} of weights on each"
    if rest > 0:
        held = _tokens(facts, spread, rest)
        return StartFailure(
            StartFault.MEMORY,
            f"{head} leave a cache of {held:,} tokens, less than the context of {context:,}. {_more(facts)}",
        )
    return StartFailure(
        StartFault.MEMORY, f"{head}, of which {gib(SHARE_HIGH * gpu.memory_bytes)} can be used. {_more(facts)}"
    )


def _more(facts: ModelFacts) -> str:
    if facts.family in DISTILLS:
        return "Set [engine] gpus higher, or a smaller [replica] context_tokens_max"
    return (
        "Name more GPUs in [replica] devices, take a smaller context_tokens_max or a build with smaller numbers; over several "
        "machines run the engine yourself, and name it with [replica] url"
    )
