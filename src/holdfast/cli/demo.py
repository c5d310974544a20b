"""holdfast demo: half a minute of killing and freezing replicas under load, with every answer checked token for token."""

import argparse
import asyncio
import signal
import sys

import msgspec
import uvloop
from rich.console import Console

from holdfast.domain.fault import NoReplica
from holdfast.drill.demo import Demo, Wishes
from holdfast.host.clock import MonotonicClock
from holdfast.policy.havoc import Blow
from holdfast.policy.reckoning import Reckoning

SHOWN_MAX = 5
NEXT = """Next: holdfast up                             a site of your own at http://127.0.0.1:8000/v1
      holdfast chat 'Count from 7 to 68.'     and, in another terminal, kill one of its replicas"""


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("demo", help="kill replicas under load and check every answer", description=__doc__)
    add = parser.add_argument
    add("--seconds", type=_positive, default=30, metavar="N", help="how long the havoc lasts (default 30)")
    add("--streams", type=_positive, default=20, metavar="N", help="answers that are always underway (default 20)")
    add("--replicas", type=_several, default=3, metavar="N", help="replicas, at least 2 (default 3)")
    add("--seed", type=int, default=1, metavar="N", help="same seed, same choice of blows (default 1)")
    add("--json", action="store_true", help="print the verdict as one JSON object, and nothing else on stdout")


def run(args: argparse.Namespace) -> int:
    """0: every answer was exact. 1: at least one was not. 2: the site did not come up. 130: interrupted."""
    console = Console(stderr=args.json)
    wishes = Wishes(seconds=args.seconds, streams=args.streams, replicas=args.replicas, seed=args.seed)
    demo = Demo(wishes, MonotonicClock(), console)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            reckoning = runner.run(_until_told(demo))
    except NoReplica as fault:
        print(f"holdfast demo: {fault.why}", file=sys.stderr)
        return 2
    except asyncio.CancelledError:
        print("holdfast demo: interrupted; nothing of it runs any more", file=sys.stderr)
        return 130
    _tell(demo, reckoning, args.json, console)
    return 0 if reckoning.ok and not demo.survivors else 1


async def _until_told(demo: Demo) -> Reckoning:
    """Run it; the first signal ends it in order, and impatience changes nothing: a second one would leave processes behind."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(demo.run())

    def stop() -> None:
        if not task.cancelling():
            task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop)
    return await task


def _tell(demo: Demo, reckoning: Reckoning, as_json: bool, console: Console) -> None:
    for question, answer in demo.broken[:SHOWN_MAX]:
        console.print(
            f"broken: {question.prompt!r} {answer.end} {answer.why}", highlight=False, soft_wrap=True, markup=False
        )
        console.print(f"        {answer.reasoning + answer.content!r}", highlight=False, soft_wrap=True, markup=False)
    for survivor in demo.survivors:
        console.print(f"left running and killed: {survivor}", highlight=False, soft_wrap=True)
    if as_json:
        pauses = {blow.name.lower(): reckoning.pauses_ms(blow) for blow in (Blow.KILL, Blow.FREEZE)}
        fields = {name: value for name, value in msgspec.structs.asdict(reckoning).items() if name != "pauses"}
        told = {**fields, "ok": reckoning.ok, "pauses_ms": pauses, "verdict": reckoning.verdict()}
        print(msgspec.json.encode(told).decode())
        return
    console.print(
        reckoning.verdict(), style="bold green" if reckoning.ok else "bold red", highlight=False, soft_wrap=True
    )
    console.print(NEXT, highlight=False, soft_wrap=True)


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _several(text: str) -> int:
    if not text.isdigit() or int(text) < 2:
        raise argparse.ArgumentTypeError(f"{text!r} is too few: with fewer than 2 replicas there is nowhere to go")
    return int(text)
