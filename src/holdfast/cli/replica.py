"""holdfast replica: one engine, in this process or behind it, serving gateways over a socket or loopback until told to go."""

import argparse
import asyncio
import gc
import importlib
import logging
import sys
from pathlib import Path

import uvloop

from holdfast.cli.replica_doors import Replica, furnished, serve, tell_ready
from holdfast.cli.start_faults import start_fault
from holdfast.domain.address import parse_address
from holdfast.domain.engine import FOREIGN
from holdfast.domain.fault import Fault
from holdfast.host.clock import MonotonicClock
from holdfast.host.discretion import be_discreet
from holdfast.host.engine_process import EngineNotStarted
from holdfast.pearl.config import model_type_of
from holdfast.pearl.listen import claim
from holdfast.pearl.options import OpenCore
from holdfast.sim.scripted import MISHAPS, POISONS, Mishap, Poison

# Each is a module with `open_core(args)`; only the one that was asked for is loaded: a scripted replica needs no torch.
ENGINES = {"embedded": "holdfast.cli.core_embedded", "scripted": "holdfast.cli.core_scripted"}
FOREIGN_MODULE = "holdfast.cli.replica_foreign"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("replica", help="run one engine process", description=__doc__)
    add = parser.add_argument
    add("--listen", required=True, metavar="ADDRESS", help="unix:/path or 127.0.0.1:PORT; metrics and /health too")
    add("--model", type=Path, metavar="DIR", help="a model folder in Hugging Face format")
    add("--name", default="replica", help="this replica's name in logs, metrics and health")
    add("--serve-as", default="", metavar="NAME", help="the model name that clients ask for (default: the folder's)")
    add("--box", type=Path, metavar="PATH", help="write here how the process died, if it dies of its own fault")
    add("--health", default="", metavar="ADDRESS", help="serve grpc.health.v1 here")
    add("--engine", choices=(*ENGINES, *FOREIGN), default="embedded")
    add("--slots", type=_positive, default=32, help="answers that run at once (default 32)")
    add("--context", type=_positive, default=2048, help="prompt and answer of one slot, in tokens (default 2048)")
    add("--chunk", type=_positive, default=256, help="prompt tokens that one step may read (default 256)")
    add("--queue", type=_natural, default=128, help="attempts that may wait for a slot (default 128)")
    add("--dtype", choices=("fp32", "bf16"), default="fp32")
    add("--threads", type=_positive, default=1)
    add("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    add("--drain-s", type=_seconds, default=30.0, help="after SIGTERM answers may go on for so long (default 30)")
    add(
        "--batch-window-ms",
        type=_seconds,
        default=0.0,
        help="wait so long, when idle, for more answers that nobody streams",
    )
    add("--greedy-across", action="store_true", help="other engines on its weights may go on with its greedy answers")
    add("--core-dumps", action="store_true", help="let a crash leave a core file, with prompts in it")
    add("--still-s", type=_seconds, default=10.0, help="not healthy when no step was made for so long (default 10)")
    foreign = parser.add_argument_group("foreign engines: programs of somebody else, see holdfast engine check")
    add = foreign.add_argument
    add("--settings", type=Path, metavar="FILE", help="settings.json of the state folder: [replica], [engine], [model]")
    add("--number", type=_natural, default=0, help="of this replica: which devices, which url (default 0)")
    scripted = parser.add_argument_group("scripted engine: answers known beforehand, for drills and measurements")
    add = scripted.add_argument
    add("--token-ms", type=_seconds, default=0.0, help="milliseconds from token to token")
    add("--instant", type=_positive, default=1, metavar="TOKENS", help="tokens per step (default 1)")
    add("--answer-tokens", type=_natural, default=0, help="answers stop by themselves after so many tokens")
    add(
        "--mishap",
        type=_mishap,
        metavar="KIND:TOKENS",
        help="refuse, bad, fault:N, forget:N, stall:N, freeze:N or hang:N, every attempt",
    )
    add("--levers", type=Path, metavar="PATH", help="obey levers at this unix socket; for drills only")
    add(
        "--poison",
        type=_poison,
        action="append",
        default=[],
        metavar="ID:KIND:TOKENS",
        help="die of any prompt that holds this token id, once its answer has so many tokens: raise, abort, segv, silent",
    )


def run(args: argparse.Namespace) -> int:
    """Run until drained. 0: left as told. 2: could not start; one sentence on stderr says why."""
    clock = MonotonicClock()
    began = clock.now()
    logging.basicConfig(stream=sys.stderr, level=logging.INFO)
    be_discreet(args.core_dumps)
    if args.engine in FOREIGN:
        code: int = importlib.import_module(FOREIGN_MODULE).run(args, clock, began)
        return code
    try:
        replica = _prepare(args, clock)
    except (EngineNotStarted, Fault, OSError, ValueError, MemoryError, RuntimeError) as error:
        found = start_fault(error)
        if found is None:
            raise
        print(f"holdfast replica: {found.why}", file=sys.stderr)
        return found.code
    gc.collect()
    gc.freeze()  # what was loaded stays for good: no collector walks through it between two steps

    def ready() -> None:
        tell_ready(replica, clock.now() - began)

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(replica, args.drain_s, ready))
    finally:
        replica.health.stop()
    return 0


def _prepare(args: argparse.Namespace, clock: MonotonicClock) -> Replica:
    """Open everything that can fail: the address first, since it fails fast."""
    if args.engine == "embedded":
        if args.model is None:
            raise ValueError("--model is missing: name a model folder, or choose --engine scripted")
        model_type_of(args.model)  # a wrong folder shows before the engine's libraries are loaded
    claim(parse_address(args.listen)).close()  # a taken address shows now, not after minutes of loading
    core = _open_core(args)
    return furnished(args, clock, core, core.context_tokens_max)


def _open_core(args: argparse.Namespace) -> OpenCore:
    try:
        module = importlib.import_module(ENGINES[args.engine])
    except ModuleNotFoundError as error:
        raise ValueError(f"--engine {args.engine} needs {error.name}: pip install 'holdfast[embedded]'") from error
    core: OpenCore = module.open_core(args)
    return core


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _natural(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, 0 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, 0 or more")
    return value


def _poison(text: str) -> Poison:
    id, _, rest = text.partition(":")
    kind, _, after = rest.partition(":")
    if not id.isdigit() or kind not in POISONS or not (after or "0").isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is not ID:KIND:TOKENS with one of {', '.join(POISONS)}")
    return Poison(int(id), kind, int(after or "0"))


def _mishap(text: str) -> Mishap:
    kind, _, after = text.partition(":")
    if kind not in MISHAPS or not (after or "0").isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(MISHAPS)} with :TOKENS, such as fault:20")
    return Mishap(kind, int(after or "0"))
