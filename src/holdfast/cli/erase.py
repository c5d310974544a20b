"""holdfast erase: overwrite and remove what is stored of a tenant's requests and answers, while the site runs."""

import argparse
import sys

from holdfast.app.acts import write_down_if_it_can
from holdfast.domain.settings import BadSettings
from holdfast.store.erasure import erase_access, erase_journal, erase_sentences
from holdfast.store.folder import folder_of
from holdfast.store.settings_file import load_settings
from holdfast.store.shelf import shelf_folder


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("erase", help="erase what is stored of a tenant", description=__doc__)
    add = parser.add_argument
    add("--tenant", required=True, metavar="NAME", help="whose; requests without a key are those of `default`")
    add("--settings", default="", metavar="FILE", help="settings file (default: holdfast.toml)")


def run(args: argparse.Namespace) -> int:
    """0: all is gone. 1: answers of it still run. 2: asked wrongly, or a file can't be written."""
    tenant = args.tenant
    try:
        settings = load_settings(args.settings)
        folder = folder_of(settings)
        if not folder.root.is_dir():
            raise BadSettings(f"{folder.root} does not exist: nothing is stored")
        answers = erase_journal(shelf_folder(settings.journal.dir, folder.root), tenant)
        lines = erase_access(folder.root / "log", tenant)
        sentences = erase_sentences(folder.quarantine, tenant)
    except (BadSettings, OSError) as error:
        print(f"holdfast erase: {error}", file=sys.stderr)
        return 2
    gone = {"answers": answers.answers, "access_lines": lines, "sentences": sentences, "running": answers.running}
    write_down_if_it_can(folder, "erase", tenant=tenant, **{name: str(count) for name, count in gone.items()})
    print(
        f"{tenant}: {answers.answers} answers in the journal, {lines} lines of the access log and {sentences} entries of the "
        "quarantine are erased"
    )
    if answers.running:
        print(
            f"holdfast erase: {answers.running} answers of {tenant} still run, and leave the journal by themselves "
            f"{settings.journal.grace_s:g} s or so after their end. End its keys first (holdfast key revoke), then say it again.",
            file=sys.stderr,
        )
        return 1
    return 0
