"""holdfast load: an open-loop load on any address that speaks OpenAI's chat API. Times count from when a request was due."""

import argparse
import importlib
import sys
from importlib.util import find_spec
from pathlib import Path

MISSING = "holdfast load needs a package more: pip install 'holdfast[load]'"


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("load", help="measure a site under an open-loop load", description=__doc__)
    add = parser.add_argument
    add("url", metavar="URL", help="http://HOST:PORT/v1")
    add(
        "--rate", default="10", metavar="N", help="requests a second; or 200:60,50:30, one after the other (default 10)"
    )
    add("--arrival", choices=("poisson", "constant"), default="poisson", help="how they are spread (default poisson)")
    add("--duration", type=float, default=30.0, metavar="S", help="seconds of a rate without its own (default 30)")
    add("--warm-up", type=float, default=0.0, metavar="S", help="seconds at the beginning that are not counted")
    add("--tenants", default="default", metavar="LIST", help="NAME:KEY:SHARE,...: whose keys, and how much each asks")
    add("--prompt-tokens", default="32", metavar="N", help="128, 16-512, or lognormal:MEDIAN:SIGMA (default 32)")
    add("--output-tokens", default="32", metavar="N", help="likewise (default 32)")
    add("--deadline", type=float, default=0.0, metavar="S", help="later answers are not good; the site is told too")
    add("--patience", type=float, default=0.0, metavar="S", help="hang up after (default: the deadline, or 60)")
    add("--stream", action=argparse.BooleanOptionalAction, default=True, help="whether answers are streamed")
    add("--full-length", action=argparse.BooleanOptionalAction, default=True, help="send ignore_eos")
    add("--retries", type=int, default=0, metavar="N", help="attempts after the first, when refused or failed")
    add("--obey", action=argparse.BooleanOptionalAction, default=True, help="wait as Retry-After says before a retry")
    add("--model", default="", metavar="NAME", help="default: the first that the address lists")
    add("--seed", type=int, default=1, metavar="N", help="same seed, same requests at the same moments (default 1)")
    add("--processes", type=int, default=1, metavar="N", help="processes that share the load (default 1)")
    add("--connections", type=int, default=10_000, metavar="N", help="most connections of one process")
    add("--pool", type=int, default=0, metavar="N", help="connections that each process opens before its first request")
    add("--source", default="", metavar="IP", help="connect from this address")
    add("--json", type=Path, metavar="FILE", help="write everything there; - for stdout")
    add("--plot", type=Path, metavar="FILE", help="draw it: FILE.svg, .png or .pdf")
    add("--raw", action="store_true", help=argparse.SUPPRESS)


def run(args: argparse.Namespace) -> int:
    """0: it was played. 1: it could not be, or was itself too slow to keep its schedule. 2: asked wrongly. 130: interrupted."""
    if not find_spec("hdrh") or (args.plot and not find_spec("matplotlib")):
        print(MISSING, file=sys.stderr)
        return 2
    code: int = importlib.import_module("holdfast.cli.load_play").run(args)
    return code
