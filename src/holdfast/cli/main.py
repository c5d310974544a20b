"""holdfast: the command line. Each verb is a module with `add_parser(subparsers)` and `run(args) -> int`.

Only the verb that was asked for is imported: `holdfast status` must not wait for an engine's libraries to load.
"""

import argparse
import importlib
import sys

from holdfast import __version__

# verb -> (module, what it does); those below the gap are started by `holdfast up`
VERBS: dict[str, tuple[str, str]] = {
    "up": ("holdfast.cli.up", "start a site and keep it alive"),
    "down": ("holdfast.cli.down", "stop a site, whether or not its supervisor lives"),
    "drain": ("holdfast.cli.drain", "take a replica out of service without breaking an answer"),
    "undrain": ("holdfast.cli.undrain", "let a drained or quarantined replica run again"),
    "upgrade": ("holdfast.cli.upgrade", "replace Holdfast's own processes while they serve"),
    "quarantine": ("holdfast.cli.quarantine", "list requests that kill engines, or let one in again"),
    "key": ("holdfast.cli.key", "make, list, rotate and revoke API keys"),
    "audit": ("holdfast.cli.audit", "show and check what operators did"),
    "erase": ("holdfast.cli.erase", "erase what is stored of a tenant"),
    "status": ("holdfast.cli.status", "show what runs, in which state, and why"),
    "top": ("holdfast.cli.top", "watch the load: rates, queue, replicas, refusals and why"),
    "limits": ("holdfast.cli.limits", "show what applies to whom"),
    "scale": ("holdfast.cli.scale", "say how many replicas serve, or leave it to the load"),
    "chat": ("holdfast.cli.chat", "talk to the model"),
    "demo": ("holdfast.cli.demo", "kill replicas under load and check every answer"),
    "validate": ("holdfast.cli.validate", "check a model folder"),
    "gguf": ("holdfast.cli.gguf", "write a model folder as GGUF, for llama.cpp"),
    "engine": ("holdfast.cli.engine", "explain how engines will be run, and why"),
    "settings": ("holdfast.cli.settings", "print the reference of all settings"),
    "sim": ("holdfast.cli.sim", "play whole sites full of faults in virtual time, by seed"),
    "load": ("holdfast.cli.load", "measure a site under an open-loop load"),
    "replica": ("holdfast.cli.replica", "run one engine process (up does this)"),
    "gateway": ("holdfast.cli.gateway", "run one gateway worker (up does this)"),
    "control": ("holdfast.cli.control", "run the control plane (up does this)"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit code: 0 done, 1 it did not work, 2 it was asked wrongly."""
    words = sys.argv[1:] if argv is None else argv
    verb = words[0] if words else ""
    if verb not in VERBS:
        return _overview(words)
    parser = argparse.ArgumentParser(prog="holdfast")
    module = importlib.import_module(VERBS[verb][0])
    module.add_parser(parser.add_subparsers(dest="verb", required=True))
    code: int = module.run(parser.parse_args(words))
    return code


def _overview(words: list[str]) -> int:
    """Answer whatever is not a verb: help, version, or a word that nobody knows."""
    lines = "\n".join(f"  {verb:<10} {what}" for verb, (_, what) in VERBS.items())
    parser = argparse.ArgumentParser(
        prog="holdfast",
        usage="holdfast VERB [options]",
        description="Keeps DeepSeek answering on your own hardware.",
        epilog=f"verbs:\n{lines}\n\nholdfast VERB --help tells more.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"holdfast {__version__}")
    parser.add_argument("verb", nargs="?", help=argparse.SUPPRESS)
    verb = parser.parse_known_args(words)[0].verb
    if verb is None:
        parser.print_help()
        return 0
    print(f"holdfast: there is no verb {verb!r}. Verbs: {', '.join(VERBS)}.", file=sys.stderr)
    return 2
