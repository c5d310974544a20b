"""Acts of operators, written down: every verb that changes a site tells the audit log who did what."""

import getpass
import os
import sys
from hashlib import sha256
from pathlib import Path

import msgspec
from msgspec import structs

from holdfast.domain.settings import Settings
from holdfast.host.clock import unix_s
from holdfast.store.audit import AuditLog
from holdfast.store.folder import Folder


def whoever() -> str:
    """Who runs this process: the number that the kernel knows, and the names that it goes by."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError):
        name = "?"
    behind = os.environ.get("SUDO_USER", "")
    return f"uid {os.getuid()} ({name}{f', for {behind}' if behind else ''})"


def write_down(folder: Folder, act: str, **what: str) -> None:
    """One entry. Raises OSError: it can't be recorded."""
    AuditLog(folder.audit, unix_s, whoever()).append(act, what)


def write_down_if_it_can(folder: Folder, act: str, **what: str) -> None:
    """The same for acts that must not wait for a disk, such as stopping a site: what was not recorded is told on stderr."""
    try:
        write_down(folder, act, **what)
    except OSError as error:
        print(f"holdfast: this is not in the audit log {Path(folder.audit)}: {error}", file=sys.stderr)


def digest_of_settings(settings: Settings) -> str:
    """Which settings these are, without a key of theirs."""
    gateway = structs.replace(settings.gateway, key="")
    tenants = {name: structs.replace(one, keys=()) for name, one in settings.tenants.items()}
    bare = structs.replace(settings, gateway=gateway, tenants=tenants)
    return sha256(msgspec.json.encode(bare)).hexdigest()
