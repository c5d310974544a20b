"""holdfast engine check: explain what will be run for each replica's engine, and why, before it runs.

Nothing is started or written; the engine's program is asked for its version, and with --parse its own parser for the command.
"""

import argparse
import shlex
import sys

import msgspec
from rich.console import Console
from rich.text import Text

from holdfast.app.children import devices_of
from holdfast.app.engine_check import Checked, Said, check
from holdfast.domain.settings import BadSettings, Settings
from holdfast.host.gpus import gpus_here
from holdfast.store.settings_file import load_settings, with_model

WORD_WIDTH = 40
ALIKE = ("engine", "program", "url", "command", "problem", "warnings")


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("engine", help="explain how engines will be run, and why", description=__doc__)
    inner = parser.add_subparsers(dest="what", required=True)
    add = inner.add_parser("check", help="explain it, and say what is in the way", description=__doc__).add_argument
    add("settings", nargs="?", default="", metavar="FILE", help="settings file (default: holdfast.toml)")
    add("--replica", type=int, metavar="N", help="only this replica, counted from 0")
    add("--parse", action="store_true", help="have the engine's own parser read the command, in its own environment")
    add("--json", action="store_true", help="print one JSON object for each replica")


def run(args: argparse.Namespace) -> int:
    """0: all would be started. 1: at least one would not. 2: asked wrongly."""
    try:
        settings = with_model(load_settings(args.settings))
        devices_of(settings.replica.devices)
        numbers = _numbers(settings, args.replica)
    except BadSettings as error:
        print(f"holdfast engine: {error}", file=sys.stderr)
        return 2
    seen = gpus_here()
    found: list[Checked] = []
    for number in numbers:
        known = any(one.engine == settings.replica.engine and one.parser_asked for one in found)
        found.append(check(settings, number, seen, args.parse and not known))
    if not found and not args.json:
        print("[replica] count is 0: no replica is started, so there is no engine to check.")
    if args.json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(found)).decode() + "\n")
    else:
        _print(found, Console(highlight=False, soft_wrap=True))
    return 1 if any(one.problem for one in found) else 0


def _numbers(settings: Settings, only: int | None) -> list[int]:
    most = max(settings.replica.count, settings.scaling.max if settings.scaling.on else 0)
    if only is None:
        return list(range(most))
    if not most:
        raise BadSettings(f"there is no replica {only}: [replica] count is 0.")
    if not 0 <= only < most:
        raise BadSettings(f"there is no replica {only}: they are counted from 0 to {most - 1}.")
    return [only]


def _print(found: list[Checked], console: Console) -> None:
    for at, one in enumerate(found):
        like = next((other for other in found[:at] if _alike(one, other)), None)
        if like is not None:
            on = f" on GPU {','.join(map(str, one.gpus))}" if one.gpus else ""
            console.print(Text(f"replica {one.replica}: as replica {like.replica}{on}\n", "bold"))
        else:
            _replica(one, console)


def _alike(one: Checked, other: Checked) -> bool:
    """Whether two differ in nothing but their GPUs and ports."""
    if len(one.command) != len(other.command) or len(one.gpus) != len(other.gpus):
        return False
    differing = [a for a, b in zip(one.command, other.command, strict=True) if a != b]
    same = all(getattr(one, name) == getattr(other, name) for name in ALIKE if name != "command")
    return same and all(any(letter.isdigit() for letter in word) for word in differing)


def _replica(one: Checked, console: Console) -> None:
    how = f"at {one.url}" if one.url else ""
    console.print(
        Text(f"replica {one.replica}: {' '.join(part for part in (one.engine, one.version, how) if part)}", "bold")
    )
    rows = [("model", one.model), ("GPUs", ", ".join(map(str, one.gpus))), ("room", one.room)]
    if one.command:
        rows += [("start", f"at most {one.start_s:g} s"), ("end", one.leave)]
    for name, value in rows:
        if value:
            console.print(Text(f"  {name:<7}", "dim"), Text(value), sep="")
    _said("command", one.why, console)
    _said("environment, and nothing else", one.env, console)
    if one.passed:
        console.print(Text(f"    passed on: {', '.join(one.passed)}"))
    if one.command:
        console.print(Text("\n  to run it by hand, with the environment above:", "dim"))
        console.print(Text(f"  {shlex.join(one.command)}"))
    for warning in one.warnings:
        console.print(Text(f"\n  warning: {warning}", "yellow"))
    if one.parser_asked and not one.parser_said:
        console.print(Text(f"\n  {one.engine}'s own parser understands the command", "green"))
    if one.parser_said and not one.parser_asked:
        console.print(Text(f"\n  {one.parser_said}", "dim"))
    if one.problem:
        console.print(Text(f"\n  would not start ({one.problem_code.lower()}): {one.problem}", "red"))
    console.print()


def _said(title: str, said: list[Said], console: Console) -> None:
    """Words with their sentences side by side, below one another where a word is long."""
    if not said:
        return
    console.print(Text(f"\n  {title}", "dim"))
    for one in said:
        if len(one.word) > WORD_WIDTH:
            console.print(Text(f"    {one.word}"))
            if one.why:
                console.print(Text(f"    {'':<{WORD_WIDTH}}  {one.why}", "dim"))
        else:
            console.print(Text(f"    {one.word:<{WORD_WIDTH}}"), Text(f"  {one.why}", "dim"), sep="")
