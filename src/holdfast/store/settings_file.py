"""The settings file: finds it, reads it, and fills in where the model lies."""

import importlib.resources
import os
from pathlib import Path

from msgspec import structs

from holdfast.domain.settings import BadSettings, Settings
from holdfast.domain.settings_text import read

SHIPPED = "pearl"


def load_settings(path: str = "") -> Settings:
    """Settings from a file; `holdfast.toml` of this folder when none is named, all defaults when that is absent too.

    Raises:
        BadSettings: the file is not there or can't be used.
    """
    source = Path(path or "holdfast.toml")
    try:
        text = source.read_text(encoding="utf-8")
    except FileNotFoundError:
        if path:
            raise BadSettings(f"{path}: there is no such settings file.") from None
        text = ""
    except (OSError, UnicodeDecodeError) as error:
        raise BadSettings(f"{source} can't be read: {error}.") from None
    return read(text, str(source), os.environ.get("HOLDFAST_KEY", ""))


def with_model(settings: Settings) -> Settings:
    """The settings with the model's folder and name filled in.

    Raises:
        BadSettings: the folder is not a model's.
    """
    model = settings.model
    path = Path(model.path).expanduser().absolute() if model.path else _shipped()
    needed = ["config.json", "tokenizer.json"] if settings.replica.engine == "embedded" else ["tokenizer.json"]
    missing = [name for name in needed if not (path / name).is_file()]
    if missing and model.path:
        raise BadSettings(
            f"[model] path: {path} holds no {' and no '.join(missing)}. Name a folder in Hugging Face format."
        )
    if missing:
        raise BadSettings(
            f"the model that ships is not in this installation ({path}). Name a folder with [model] path."
        )
    named = structs.replace(settings, model=structs.replace(model, path=str(path), name=model.name or path.name))
    return _with_smaller(named, needed) if settings.smaller.path else named


def _with_smaller(settings: Settings, needed: list[str]) -> Settings:
    smaller = settings.smaller
    path = Path(smaller.path).expanduser().absolute()
    missing = [name for name in needed if not (path / name).is_file()]
    if missing:
        raise BadSettings(
            f"[smaller] path: {path} holds no {' and no '.join(missing)}. Name a folder in Hugging Face format."
        )
    name = smaller.name or path.name
    if name == settings.model.name:
        raise BadSettings(
            f"[smaller] name: {name!r} is what [model] is called too. Give it a name of its own, so that answers can say it."
        )
    return structs.replace(settings, smaller=structs.replace(smaller, path=str(path), name=name))


def _shipped() -> Path:
    return Path(str(importlib.resources.files("holdfast"))) / "shipped" / SHIPPED
