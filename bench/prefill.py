"""Long prompts at full batch, and nobody is hurt: is a replica that reads for minutes taken for a lost one?

Scripted replicas that read at most `CHUNK_TOKENS` prompt tokens a step, all attempts together, at `S_PER_TOKEN`, as engines with
chunked prefill do: while a wave of long prompts is read, steps take ten times as long as before, and a stream's first token may
be a minute away.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

import msgspec
from matrix import OUT
from msgspec import Struct

import holdfast
from holdfast.drill.arena import Arena, Plan, Sections
from holdfast.drill.client import Client
from holdfast.drill.crowd import Crowd
from holdfast.drill.truth import Truth
from holdfast.host.clock import MonotonicClock
from holdfast.policy.reckoning import percentile, reckon
from holdfast.sim.levers import Pull

MODEL = Path(holdfast.__file__).parent / "shipped" / "pearl"
CONTEXT_TOKENS_MAX = 40_960
CHUNK_TOKENS = 2048
S_PER_TOKEN = 0.0001  # 10,000 prompt tokens a second
PATIENCE_S = 900.0
LONG_CASES = 12


class Outcome(Struct, kw_only=True):
    """What was seen."""

    replicas: int
    streams: int
    prompt_tokens: int
    answers: int
    long_answers: int
    broken: int
    moves: int
    false_ejections: int
    first_token_s_max: float
    gap_s_max: float
    gap_s_p99: float
    whys: list[str]


def model_with_room(folder: Path) -> Path:
    """The shipped model's folder with a longer context: the scripted engine needs its tokenizer only."""
    shutil.copytree(MODEL, folder, ignore=shutil.ignore_patterns("*.safetensors", "*.jsonl"))
    path = folder / "config.json"
    config = msgspec.json.decode(path.read_bytes())
    path.write_bytes(msgspec.json.encode({**config, "max_position_embeddings": CONTEXT_TOKENS_MAX}))
    return folder


def words(truth: Truth, tokens: int) -> str:
    """A prompt of about so many tokens, never fewer."""
    unit = "one two three four five six seven eight nine ten "
    per_unit = (truth.prompt_tokens(unit * 20) - truth.prompt_tokens(unit * 10)) / 10
    return unit * (int(tokens / per_unit) + 1)


async def measure(args: argparse.Namespace) -> Outcome:
    """One run of `args.seconds`; a third of the streams ask long questions, the rest short ones."""
    clock = MonotonicClock()
    streams = args.slots * args.replicas  # full batch
    with tempfile.TemporaryDirectory() as root:
        folder = model_with_room(Path(root) / "pearl")
        more: Sections = {
            "model": {"path": str(folder), "name": "pearl"},
            "replica": {"token_ms": args.token_ms, "slots": args.slots, "context_tokens_max": CONTEXT_TOKENS_MAX},
        }
        async with Arena(Plan(replicas=args.replicas, engine="scripted", more=more), clock) as arena:
            reading = Pull("prefill", chunk_tokens=CHUNK_TOKENS, s_per_token=S_PER_TOKEN)
            for place in arena.roster().places:
                if await arena.pull(place.replica, reading) is None:
                    sys.exit(f"{place.replica} has no levers")
            truth, tail = arena.truth(), arena.tail()
            text = words(truth, args.prompt_tokens)
            short = [truth.ask(n, f"Count from {n}.", 200) for n in range(50)]
            long = [truth.ask(1000 + n, f"{n} {text}", 60) for n in range(LONG_CASES)]
            crowd = Crowd(
                Client("127.0.0.1", arena.port, clock, PATIENCE_S),
                clock,
                lambda stream, n: long[(stream + n) % LONG_CASES] if stream % 3 else short[(stream * 7 + n) % 50],
            )
            await crowd.run(streams, clock.now() + args.seconds)
            told = [one for one in tail.more() if one["event"] in OUT]
            tail.close()
            length = truth.prompt_tokens(f"0 {text}")
    total = reckon(crowd.answers, truth.answers, [])
    gaps = sorted(b - a for one in crowd.answers for a, b in zip(one.arrivals, one.arrivals[1:], strict=False))
    firsts = [one.arrivals[0] - one.opened_at for one in crowd.answers if one.arrivals]
    return Outcome(
        replicas=args.replicas,
        streams=streams,
        prompt_tokens=length,
        answers=total.answers,
        long_answers=sum(one.case >= 1000 for one in crowd.answers),
        broken=total.broken,
        moves=crowd.moves,
        false_ejections=len(told),
        first_token_s_max=round(max(firsts, default=-1.0), 2),
        gap_s_max=round(max(gaps, default=-1.0), 2),
        gap_s_p99=round(percentile(gaps, 0.99), 3) if gaps else -1.0,
        whys=sorted({*total.whys, *(f"{one['event']}: {one['why']}" for one in told)})[:12],
    )


def tell(seen: Outcome) -> None:
    """For people."""
    print(
        f"{seen.streams} streams on {seen.replicas} replicas, two in three with prompts of {seen.prompt_tokens} tokens: "
        f"{seen.answers} answers ({seen.long_answers} long), {seen.broken} broken, {seen.moves} moved, "
        f"{seen.false_ejections} false ejections; longest wait for a first token {seen.first_token_s_max:g} s, "
        f"gap p99 {seen.gap_s_p99:g} s, longest {seen.gap_s_max:g} s"
    )
    for why in seen.whys:
        print(why)
