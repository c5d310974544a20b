"""holdfast settings: print the reference of all settings, in Markdown."""

import argparse
import sys

from holdfast.domain.settings_text import reference


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    subparsers.add_parser("settings", help="print the reference of all settings", description=__doc__)


def run(args: argparse.Namespace) -> int:
    """Print it."""
    sys.stdout.write(reference())
    return 0
