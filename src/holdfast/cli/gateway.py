"""holdfast gateway: one gateway worker. Several share the port; each reads the roster for itself."""

import argparse
import sys
from pathlib import Path

from holdfast.app.worker import gateway_worker
from holdfast.domain.settings import BadSettings
from holdfast.host.discretion import be_discreet
from holdfast.store.folder import kept_settings


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("gateway", help="run one gateway worker", description=__doc__)
    parser.add_argument(
        "--settings", required=True, type=Path, metavar="FILE", help="settings.json of the state folder"
    )
    parser.add_argument("--name", default="gateway-0", help="this worker's name")


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM and the answers are drained. 2: it could not start; one sentence on stderr says why."""
    try:
        settings = kept_settings(args.settings)
        be_discreet(settings.guard.core_dumps)
        return gateway_worker(settings, args.name)
    except (BadSettings, OSError) as error:
        print(f"holdfast gateway: {error}", file=sys.stderr)
        return 2
