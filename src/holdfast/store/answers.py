"""Known answers of canaries: recorded in the model's folder when it was validated, or agreed on by two replicas.

What is recorded holds for every build that computes the same arithmetic, because `holdfast validate --record` only takes answers
whose every choice was clear by a margin. What was agreed on holds for one release, and lies in the state folder by its digest.
"""

import hashlib
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from holdfast.policy.canary import MARGIN_NATS, Known
from holdfast.store import snapshot

FILE = "canary.json"
MANIFEST = "manifest.json"


class Recorded(Struct, frozen=True, kw_only=True):
    """The file in a model folder. `engine`: whose tokens these are."""

    engine: str
    dtype: str
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    margin_nats: float


def record(model: Path, recorded: Recorded) -> Path:
    """Write it beside the model, and into the folder's manifest where there is one. Raises OSError."""
    path, data = model / FILE, msgspec.json.encode(recorded) + b"\n"
    snapshot.write(path, data, mode=0o644)
    manifest = snapshot.take(model / MANIFEST, dict[str, Any])
    if manifest is not None and isinstance(manifest.get("files"), dict):
        manifest["files"][FILE] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        text = msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
        snapshot.write(model / MANIFEST, text, mode=0o644)
    return path


def recorded(model: Path, engine: str, dtype: str) -> Known | None:
    """What was recorded for this model, if it holds for this engine and number format."""
    found = snapshot.take(model / FILE, Recorded)
    if found is None or found.engine != engine or not found.ids:
        return None
    if found.dtype != dtype and found.margin_nats < MARGIN_NATS:
        return None
    return Known(prompt_ids=found.prompt_ids, ids=found.ids, source="recorded", margin_nats=found.margin_nats)


def agreed(folder: Path, digest: str) -> Known | None:
    """What two replicas of this release have agreed on before."""
    return snapshot.take(folder / f"{digest}.json", Known)


def keep_agreed(folder: Path, digest: str, known: Known) -> None:
    """Write it down for the next supervisor. Raises OSError."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    snapshot.put(folder / f"{digest}.json", known)
