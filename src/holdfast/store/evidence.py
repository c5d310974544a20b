"""What condemned a replica, kept as files for whoever looks into it: one JSON object a finding, the newest KEPT of them.

Only a canary's own question and answers are written here, never a word of any user.
"""

from pathlib import Path

from holdfast.domain.ailment import Exhibit
from holdfast.store import snapshot

KEPT = 100


def keep(folder: Path, exhibit: Exhibit) -> Path:
    """Write it down, drop the oldest beyond KEPT, and say where it is. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / f"{int(exhibit.at * 1000):014d}-{exhibit.replica}-{exhibit.kind}.json"
    snapshot.put(path, exhibit)
    for old in sorted(folder.glob("*.json"))[:-KEPT]:
        old.unlink(missing_ok=True)
    return path
