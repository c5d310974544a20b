"""The state folder of one site: which file lies where. Everything else in store works on paths that come from here.

lock            held by the supervisor; its pid is inside
settings.json   what the site runs with; children read it
roster.json     who may take traffic; gateway workers poll it
wishes.json     what an operator wants beyond the settings: drained replicas, upgrades
site.json       what the supervisor last saw; the control plane shows it
keys.json       API keys, as digests; see store/keys.py
events.jsonl    what happened
audit.jsonl     what was done, by whom; see store/audit.py
birth/ run/     what the supervisor wrote at a child's start, and what the child says once it is ready
log/            one log a process
sock/           unix sockets, elsewhere when this folder's path is too long for one
"""

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from msgspec import Struct

from holdfast.domain.settings import BadSettings, Settings
from holdfast.store import snapshot

SOCKET_BYTES_MAX = 107  # sun_path holds 108, one is the closing zero
NAME_BYTES_MAX = len("/gateway-000.0000.fd")


class Folder(Struct, frozen=True):
    """Paths inside the state folder of one site."""

    root: Path
    sockets: Path

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def settings(self) -> Path:
        return self.root / "settings.json"

    @property
    def roster(self) -> Path:
        return self.root / "roster.json"

    @property
    def site(self) -> Path:
        return self.root / "site.json"

    @property
    def evidence(self) -> Path:
        return self.root / "evidence"

    @property
    def answers(self) -> Path:
        return self.root / "answers"

    @property
    def quarantine(self) -> Path:
        return self.root / "quarantine"

    @property
    def wishes(self) -> Path:
        return self.root / "wishes.json"

    @property
    def keys(self) -> Path:
        return self.root / "keys.json"

    @property
    def audit(self) -> Path:
        return self.root / "audit.jsonl"

    @property
    def events(self) -> Path:
        return self.root / "events.jsonl"

    @property
    def births(self) -> Path:
        return self.root / "birth"

    def run(self, name: str) -> Path:
        return self.root / "run" / f"{name}.json"

    def box(self, name: str) -> Path:
        return self.root / "run" / f"{name}.box"

    def log(self, name: str) -> Path:
        return self.root / "log" / f"{name}.log"

    def access(self, name: str) -> Path:
        return self.root / "log" / f"{name}.access.jsonl"

    def socket(self, name: str) -> Path:
        return self.sockets / f"{name}.sock"

    def metrics(self, name: str) -> Path:
        """Where a gateway worker shows its metrics."""
        return self.sockets / f"{name}.pm"

    def handover(self, name: str) -> Path:
        """Where a gateway worker gives the listening socket back to a new supervisor."""
        return self.sockets / f"{name}.fd"

    def make(self) -> None:
        """Create what is missing, readable for the owner only.

        Raises:
            BadSettings: it can't be created, or the socket folder belongs to somebody else.
        """
        try:
            for place in (self.root, self.births, self.root / "run", self.root / "log", self.sockets):
                place.mkdir(mode=0o700, parents=True, exist_ok=True)
            found, root = self.sockets.lstat(), self.root.stat()
        except OSError as error:
            raise BadSettings(
                f"the state folder {self.root} can't be made: {error.strerror}. Choose another with [site] state_dir."
            ) from None
        if root.st_mode & stat.S_IWOTH:
            raise BadSettings(
                f"the state folder {self.root} may be written to by everybody, who could so put keys into it: chmod o-w it, or "
                "choose another with [site] state_dir."
            )
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
            raise BadSettings(
                f"{self.sockets} is not a folder that only we may write to. Choose a shorter [site] state_dir, "
                f"so that sockets can lie inside it."
            )


def folder_of(settings: Settings) -> Folder:
    """Where this site keeps its state; nothing is created."""
    site = settings.site
    if site.state_dir:
        root = Path(site.state_dir).expanduser().absolute()
    else:
        above = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
        root = Path(above) / "holdfast" / site.name
    sockets = root / "sock"
    if len(os.fsencode(sockets)) + NAME_BYTES_MAX > SOCKET_BYTES_MAX:
        digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
        sockets = Path(tempfile.gettempdir()) / f"holdfast-{os.getuid()}-{digest}"
        if len(os.fsencode(sockets)) + NAME_BYTES_MAX > SOCKET_BYTES_MAX:
            raise BadSettings(
                f"[site] state_dir: {root} is too long for unix sockets ({SOCKET_BYTES_MAX} bytes with the socket's "
                "name), and so is the folder for temporary files. Choose a shorter state_dir."
            )
    return Folder(root, sockets)


def keep_settings(folder: Folder, settings: Settings) -> None:
    """Write the settings that the children read. Owner only: the API key is inside."""
    snapshot.put(folder.settings, settings)


def kept_settings(path: Path) -> Settings:
    """Read them back.

    Raises:
        BadSettings: the file is absent or damaged.
    """
    settings = snapshot.take(path, Settings)
    if settings is None:
        raise BadSettings(f"{path} is not a settings file that `holdfast up` has written.")
    return settings
