"""holdfast key: API keys of this site. A key is shown once, when it is made; only a digest of it is kept."""

import argparse
import os
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
from rich.console import Console
from rich.table import Table

from holdfast.app.acts import write_down, write_down_if_it_can
from holdfast.domain.key import ID_BITS, SECRET_BITS, KeyEntry, KeyRing, Scope, spell_key
from holdfast.domain.settings import BadSettings
from holdfast.domain.tenant import DEFAULT
from holdfast.host.clock import unix_s
from holdfast.policy import key_ring
from holdfast.policy.key_ring import Changed, Denied, Wanted
from holdfast.store.folder import Folder, folder_of
from holdfast.store.keys import KeyFiles
from holdfast.store.settings_file import load_settings

SPAN = re.compile(r"(\d+)([smhd])")
UNITS_S = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class _No(Exception):
    """The policy denies it; the file stays as it is."""

    def __init__(self, denied: Denied) -> None:
        super().__init__(denied.why)
        self.denied = denied


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Describe the verb to the command line."""
    parser = subparsers.add_parser("key", help="make, list, rotate and revoke API keys", description=__doc__)
    verbs = parser.add_subparsers(dest="what", required=True)
    create = verbs.add_parser("create", help="make a key and print it")
    create.add_argument("name", help="what to call it: whose it is, or what for")
    create.add_argument("--tenant", default=DEFAULT, help=f"whose limits and accounts it uses (default: {DEFAULT})")
    create.add_argument(
        "--scope",
        action="append",
        choices=[str(one) for one in Scope],
        help="what it opens, may be given several times (default: chat)",
    )
    create.add_argument(
        "--expires", type=span_s, default=0.0, metavar="SPAN", help="such as 90d or 12h (default: never)"
    )
    rotate = verbs.add_parser("rotate", help="make the key that follows on another; both live for a while")
    rotate.add_argument("name", help="the name of the key")
    rotate.add_argument(
        "--grace", type=span_s, default=7 * 86400.0, metavar="SPAN", help="how long the old one lives on (default: 7d)"
    )
    revoke = verbs.add_parser("revoke", help="end a key, for good")
    revoke.add_argument("which", help="its id, or a name for all keys of that name")
    shown = verbs.add_parser("list", help="show all keys, never their secrets")
    shown.add_argument("--json", action="store_true", help="print one JSON list")
    for one in (create, rotate, revoke, shown):
        one.add_argument("--settings", default="", metavar="FILE", help="settings file (default: holdfast.toml)")


def span_s(text: str) -> float:
    """Seconds from words such as 90d, 12h, 30m, 45s."""
    found = SPAN.fullmatch(text)
    if found is None or not int(found[1]):
        raise argparse.ArgumentTypeError(f"{text!r} is no time: write 90d, 12h, 30m or 45s")
    return int(found[1]) * UNITS_S[found[2]]


def run(args: argparse.Namespace) -> int:
    """0: done. 1: denied. 2: asked wrongly, or it can't be kept or recorded; then nothing was made."""
    try:
        folder = folder_of(load_settings(args.settings))
        if args.what == "list":
            return _list(folder, args.json)
        folder.make()
        if args.what == "revoke":
            return _revoke(folder, args.which)
        return _make(folder, args)
    except (BadSettings, OSError) as error:
        print(f"holdfast key: {error}", file=sys.stderr)
        return 2
    except _No as no:
        print(f"holdfast key: {no}", file=sys.stderr)
        return 1


def _make(folder: Folder, args: argparse.Namespace) -> int:
    """Create or rotate: recorded first, so that no key exists that nobody knows of. Only the key goes to stdout."""
    now, key = unix_s(), spell_key(_bits(ID_BITS), _bits(SECRET_BITS))

    def revise(ring: KeyRing) -> Changed | Denied:
        if args.what == "rotate":
            return key_ring.rotate(ring, args.name, key, args.grace, now)
        wanted = Wanted(
            name=args.name,
            tenant=args.tenant,
            scopes=tuple(Scope(one) for one in args.scope or (Scope.CHAT,)),
            until_unix_s=now + args.expires if args.expires else 0.0,
        )
        return key_ring.create(ring, wanted, key, now)

    made = _change(folder, revise, lambda changed: _record(folder, f"key_{args.what}", changed))
    print(made.why, file=sys.stderr)
    if args.what == "rotate":
        until = _day(now + args.grace)
        print(f"the old one lives until {until} UTC; holdfast key revoke ends it sooner", file=sys.stderr)
    print("this key is shown once and kept nowhere:", file=sys.stderr)
    print(key)
    return 0


def _record(folder: Folder, act: str, changed: Changed) -> None:
    one = changed.entries[0]
    write_down(folder, act, id=one.id, name=one.name, tenant=one.tenant, scopes=" ".join(one.scopes))


def _revoke(folder: Folder, which: str) -> int:
    done = _change(folder, lambda ring: key_ring.revoke(ring, which, unix_s()), lambda changed: None)
    for one in done.entries:
        write_down_if_it_can(folder, "key_revoke", id=one.id, name=one.name, tenant=one.tenant)
    print(done.why)
    return 0


def _change(
    folder: Folder, revise: Callable[[KeyRing], Changed | Denied], before: Callable[[Changed], None]
) -> Changed:
    """Change the ring. Raises _No, OSError."""
    changes: list[Changed] = []

    def decide(ring: KeyRing) -> KeyRing:
        verdict = revise(ring)
        if isinstance(verdict, Denied):
            raise _No(verdict)
        before(verdict)
        changes.append(verdict)
        return verdict.ring

    KeyFiles(folder.keys).change(decide)
    return changes[0]


def _bits(count: int) -> int:
    return int.from_bytes(os.urandom((count + 7) // 8), "big") >> (-count % 8)


def _list(folder: Folder, as_json: bool) -> int:
    looked, now = KeyFiles(folder.keys).look(), unix_s()
    if looked.why:
        print(f"holdfast key: {looked.why}", file=sys.stderr)
    keys = looked.ring.keys if looked.ring is not None else ()
    if as_json:
        sys.stdout.write(msgspec.json.encode([_row(one, now) for one in keys]).decode() + "\n")
    elif not keys:
        print("there are no keys")
    else:
        table = Table("id", "name", "tenant", "opens", "made", "state", box=None)
        for one in keys:
            row = _row(one, now)
            table.add_row(*(str(row[name]) for name in ("id", "name", "tenant", "scopes", "made", "state")))
        Console(soft_wrap=True).print(table)
    return 0


def _row(one: KeyEntry, now: float) -> dict[str, object]:
    if one.revoked_unix_s:
        state = "revoked"
    elif not one.live(now):
        state = "expired"
    else:
        state = f"live until {_day(one.until_unix_s)}" if one.until_unix_s else "live"
    made = {"id": one.id, "name": one.name, "tenant": one.tenant, "scopes": " ".join(one.scopes)}
    return {**made, "made": _day(one.made_unix_s), "state": state}


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M")
