"""The key of an engine that runs already: as the settings have it, or out of the file that they name."""

from pathlib import Path

from holdfast.domain.settings import BadSettings
from holdfast.domain.settings_engine import KEY_FILE, EngineSettings, key_of

BYTES_MAX = 64 * 1024


def read_key(url: str, engine: EngineSettings) -> str:
    """What is shown to the engine at this url; empty for nothing. A file is read anew each time.

    Raises:
        BadSettings: there is no such file, or no key in it. The sentence holds nothing of what was read.
    """
    said = key_of(url, engine)
    path = said.removeprefix(KEY_FILE)
    if path == said:
        return said
    where = f"[engine] {'keys' if url in engine.keys else 'key'}: the key for {url} can't be read from {path}"
    try:
        with Path(path).open("rb") as file:
            found = file.read(BYTES_MAX + 1)
    except OSError as error:
        raise BadSettings(f"{where}: {error.strerror or error}. Name a file that this user can read.") from None
    key = found.decode("utf-8", "replace").strip()
    if len(found) > BYTES_MAX or not key or not (key.isprintable() and key.isascii()):
        raise BadSettings(f"{where}: it must hold the key and nothing else, in one line of plain characters.")
    return key
