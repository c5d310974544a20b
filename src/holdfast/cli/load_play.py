"""Plays what `holdfast load` was told. Apart from the verb, because its packages are not everybody's."""

import argparse
import asyncio
import importlib
import json
import sys
import urllib.request

import msgspec
import uvloop
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from holdfast.drill.load_children import Lost, Share, play
from holdfast.drill.load_children import run as run_plan
from holdfast.drill.load_plan import Plan, clients_of, lengths_of, phases_of
from holdfast.drill.load_report import Report, drawn, report_of
from holdfast.drill.load_tally import WORDS, Tally
from holdfast.drill.load_words import address_of
from holdfast.host.clock import MonotonicClock

PATIENCE_S = 60.0
ASK_S = 10.0


def run(args: argparse.Namespace) -> int:
    """0: it was played. 1: it could not be, or was itself too slow to keep its schedule. 2: asked wrongly. 130: interrupted."""
    if args.raw:
        return _child()
    console = Console(stderr=True)
    try:
        plan = _plan(args)
    except ValueError as error:
        print(f"holdfast load: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(
            f"holdfast load: {args.url} lists no models ({error}); is it there? --model NAME skips the question",
            file=sys.stderr,
        )
        return 1
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            tally = runner.run(_shown(plan, max(1, args.processes), console))
    except Lost as error:
        print(f"holdfast load: {error}", file=sys.stderr)
        return 1
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("holdfast load: interrupted; nothing of it runs any more", file=sys.stderr)
        return 130
    report = report_of(plan, tally, max(1, args.processes))
    _keep(report, args, console)
    return 1 if report.late else 0


def _plan(args: argparse.Namespace) -> Plan:
    """Raises ValueError with what is wrong, and OSError when the address does not say what it serves."""
    if args.processes < 1 or args.duration <= 0 or args.deadline < 0 or args.patience < 0 or args.retries < 0:
        raise ValueError("--processes, --duration are above 0; --deadline, --patience, --retries not below it")
    clients, phases = clients_of(args.tenants), phases_of(args.rate, args.duration)
    if not 0 <= args.warm_up < sum(phase.seconds for phase in phases):
        raise ValueError("--warm-up is not below 0, and shorter than the whole")
    address = address_of(args.url).geturl()
    return Plan(
        url=address,
        phases=phases,
        model=args.model or _first_model(address, clients[0].key),
        arrival=args.arrival,
        clients=clients,
        prompt=lengths_of(args.prompt_tokens),
        output=lengths_of(args.output_tokens),
        deadline_s=args.deadline,
        patience_s=args.patience or args.deadline or PATIENCE_S,
        stream=args.stream,
        full_length=args.full_length,
        retries=args.retries,
        obey=args.obey,
        connections_max=args.connections,
        source=args.source,
        pool=args.pool,
        seed=args.seed,
        warm_s=args.warm_up,
    )


def _first_model(address: str, key: str) -> str:
    asked = urllib.request.Request(f"{address.rstrip('/')}/models")
    if key:
        asked.add_header("authorization", f"Bearer {key}")
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(asked, timeout=ASK_S) as answer:
        try:
            return str(json.load(answer)["data"][0]["id"])
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(f"{address}/models lists no model; name one with --model") from error


async def _shown(plan: Plan, processes: int, console: Console) -> Tally:
    """Play it under a progress bar; on anything but a terminal in silence."""
    total = sum(round(phase.rate * phase.seconds) for phase in plan.phases)
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[said]}"), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("load", total=max(1, total), said="getting ready")

        def tell(counts: dict[str, int]) -> None:
            words = [f"{counts.get(word, 0)} {word.replace('_', ' ')}" for word in WORDS]
            progress.update(task, completed=counts.get("offered", 0), said=", ".join(words))

        return await run_plan(plan, processes, MonotonicClock(), tell)


def _keep(report: Report, args: argparse.Namespace, console: Console) -> None:
    """Print it, and write what was asked for."""
    text = msgspec.json.format(msgspec.json.encode(report)).decode() + "\n"
    if str(args.json) == "-":
        console.print(drawn(report))
        print(text, end="")
    else:
        Console().print(drawn(report))
        if args.json is not None:
            args.json.write_text(text)
    if args.plot is not None:
        importlib.import_module("holdfast.drill.load_plot").plot(report, args.plot)


def _child() -> int:
    """One process of the load: its share comes on stdin, what it saw goes to stdout."""
    share = msgspec.json.decode(sys.stdin.buffer.readline(), type=Share)

    def say(line: bytes) -> None:
        sys.stdout.buffer.write(line + b"\n")
        sys.stdout.buffer.flush()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(play(share, MonotonicClock(), say))
    except BrokenPipeError:
        return 1  # whoever wanted to know has gone
    except OSError as error:
        print(f"holdfast load: {share.plan.url} can't be reached: {error}", file=sys.stderr)
        return 1
    return 0
