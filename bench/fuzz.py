"""A million requests that went wrong: does any of them make the door fail, hang or grow?

    python bench/fuzz.py                     a million, from seeds 1, 2, 3 and 4
    python bench/fuzz.py --count 20000       a short look

Each is fed to the reading half in pieces; what comes out as a request goes on through the headers, the look at its nesting, the
decoder that its path has, the chat template and the tokenizer, up to where a replica would be asked. A failure is any exception
but a typed refusal, a hang is anything that takes longer than HANG_S of processor time. Failing inputs are written to --keep,
to be fed again. The last line is one JSON object.
"""

import argparse
import json
import resource
import sys
import time
from collections import Counter
from pathlib import Path
from random import Random

from prometheus_client import CollectorRegistry

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "gateway"))

from mutants import Mutants

import holdfast as package
from holdfast.dialect.open import open_dialect
from holdfast.domain.fault import BadRequest, Fault
from holdfast.domain.release import Exactness, Release
from holdfast.gateway.asker import Asker
from holdfast.gateway.head import asker
from holdfast.gateway.incoming import Hearing, Incoming, Request, Tick
from holdfast.gateway.needs import Limits, ModelCard, Needs
from holdfast.gateway.nesting import refuse_forest
from holdfast.gateway.ordering import orders
from holdfast.gateway.prompting import prompts_of
from holdfast.gateway.refusals import Refusal
from holdfast.gateway.surface import Surface
from holdfast.gateway.surfaces import BY_PATH
from holdfast.gateway.tokens import Tokens
from holdfast.host.clock import MonotonicClock
from holdfast.policy.continuation import promise

PEARL = Path(package.__file__).parent / "shipped" / "pearl"
HANG_S = 0.5
# what a mistake of ours would raise; whatever else may come ends the run at once
MISTAKES = (ArithmeticError, AssertionError, AttributeError, BufferError, LookupError, NameError, OSError, RuntimeError)
MISTAKES += (SyntaxError, TypeError, ValueError, Fault)
LIMITS = Limits(head_bytes_max=16 * 1024, body_bytes_max=256 * 1024)
RELEASE = Release(model="pearl", engine="embedded", digest="ab" * 32, exactness=Exactness.EXACT)
CARD = ModelCard(name="pearl", kinds=(RELEASE,), context_tokens_max=1000)


async def nobody(generation: object) -> object:
    """No replica is ever asked."""
    raise AssertionError(generation)
    yield


class Target:
    """The door up to the replicas."""

    def __init__(self, seed: int) -> None:
        self.outcomes: Counter[str] = Counter()
        self.needs = Needs(
            service=nobody,
            dialect=open_dialect(PEARL),
            card=lambda: CARD,
            contract=promise,
            ready=lambda: (True, ""),
            clock=MonotonicClock(),
            unix_s=lambda: 0.0,
            bits=Random(seed).getrandbits,
            emit=lambda event: None,
            limits=LIMITS,
            registry=CollectorRegistry(),
        )
        self.makers = Tokens(self.needs).makers()

    def feed(self, pieces: list[bytes]) -> None:
        """One connection's bytes."""
        incoming = Incoming(LIMITS, Hearing(self._asked, self._refused, lambda: None, Tick()))
        for piece in pieces:
            incoming.feed(piece)
        incoming.overdue(1e9)

    def _refused(self, said: Refusal) -> None:
        self.outcomes[f"head or framing: {said.status} {said.code}"] += 1

    def _asked(self, request: Request) -> None:
        path = request.path.partition(b"?")[0]
        surface, make = BY_PATH.get(path), self.makers.get(path)
        if request.method != b"POST" or (surface is None and make is None):
            self.outcomes["a page"] += 1
            return
        name = surface.name if surface is not None else "tokens"
        try:
            who = asker(request, 60.0)
            refuse_forest(request.body, LIMITS.json_depth_max, LIMITS.json_nodes_max)
            if surface is not None:
                self._ordered(request, surface, who)
            elif make is not None:
                make(request.body)
            self.outcomes[f"{name}: taken"] += 1
        except BadRequest as bad:
            self.outcomes[f"{name}: 400 {bad.code or 'invalid_value'}"] += 1

    def _ordered(self, request: Request, surface: Surface, who: Asker) -> None:
        """As far as a replica would be asked."""
        ask = surface.read(request.body)
        prompts = (surface.prompts or prompts_of)(ask, self.needs, CARD)
        orders(ask, prompts, who, self.needs, surface)


def run(seed: int, count: int, keep: Path | None) -> dict[str, object]:
    """`count` mutants of one seed."""
    target, mutants = Target(seed), Mutants(seed)
    crashes, hangs, slowest_s, size = 0, 0, 0.0, 0
    for number in range(count):
        pieces = mutants.pieces(mutants.request())
        size += sum(map(len, pieces))
        began, why = time.process_time(), ""
        try:
            target.feed(pieces)
        except MISTAKES as error:
            crashes, why = crashes + 1, f"{type(error).__name__}: {error}"
        took_s = time.process_time() - began
        slowest_s = max(slowest_s, took_s)
        if took_s > HANG_S:
            hangs, why = hangs + 1, why or f"{took_s:.2f} s"
        if why:
            print(f"seed {seed}, number {number}: {why}")
            if keep is not None:
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{seed}-{number}").write_bytes(b"".join(pieces))
    told = {"seed": seed, "crashes": crashes, "hangs": hangs, "slowest_ms": round(slowest_s * 1000, 1), "bytes": size}
    return told | {"outcomes": dict(target.outcomes.most_common())}


def rss_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--keep", type=Path, help="folder for inputs that failed")
    args = parser.parse_args()
    each = -(-args.count // len(args.seeds))
    run(0, 2000, None)
    before_mb, began = rss_mb(), time.perf_counter()
    told = [run(seed, each, args.keep) for seed in args.seeds]
    seconds = time.perf_counter() - began
    all_outcomes: Counter[str] = Counter()
    for one in told:
        all_outcomes.update(one.pop("outcomes"))
        print(one)
    for words, count in all_outcomes.most_common():
        print(f"{count:>9,}  {words}")
    crashes, hangs = sum(one["crashes"] for one in told), sum(one["hangs"] for one in told)
    found = {
        "bench": "fuzz",
        "requests": each * len(args.seeds),
        "per_s": round(each * len(args.seeds) / seconds),
        "crashes": crashes,
        "hangs": hangs,
        "slowest_ms": max(one["slowest_ms"] for one in told),
        "rss_grown_mb": round(rss_mb() - before_mb, 1),
    }
    print(json.dumps(found))
    return 1 if crashes or hangs else 0


if __name__ == "__main__":
    sys.exit(main())
