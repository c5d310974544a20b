"""Chooses the dialect of a model folder, by what the folder ships: it knows best how its model was taught."""

import json
from pathlib import Path

from holdfast.dialect.pearl import PearlDialect
from holdfast.dialect.template import TemplateDialect
from holdfast.dialect.v4 import V4Dialect
from holdfast.dialect.v32 import V32Dialect
from holdfast.dialect.wording import PATTERN, Wording, encoder_of
from holdfast.domain.dialect import Dialect

PEARL = "{#- Pearl's chat template."  # the first words of the template that dialect/pearl.py repeats
WORDED = ("deepseek_v32", "deepseek_v4")  # model types whose releases ship an encoder in place of a template


def open_dialect(folder: Path) -> Dialect:
    """V3.2's or V4's for a folder with their encoder; Pearl's own for one with her chat template, else the folder's template.

    Raises:
        ForeignVocabulary: its tokenizer can't be used here.
        OSError: a file is missing.
        ValueError: it says in no way how its model is spoken to; the sentence says what to put there.
    """
    path = folder / "chat_template.jinja"
    if path.is_file() and path.read_text("utf-8").startswith(PEARL):
        return PearlDialect(folder)
    encoder = encoder_of(folder)
    if encoder is not None:
        return _worded(folder, encoder)
    kind = _model_type(folder)
    try:
        return TemplateDialect(folder)
    except ValueError as error:
        if not kind.startswith(WORDED) or "chat template" not in str(error):
            raise
        why = f"{folder} is a {kind} without a chat template: put encoding/{PATTERN} of the model's release beside config.json"
        raise ValueError(why) from error


def _worded(folder: Path, encoder: Path) -> Dialect:
    wording = Wording(encoder)
    generation = encoder.stem.removeprefix("encoding_dsv")
    if generation.startswith("32"):
        return V32Dialect(folder, wording)
    if generation.startswith("4"):
        return V4Dialect(folder, wording)
    raise ValueError(f"{encoder} is of a generation that has no dialect here: V3.2, V4 and V4.1 do")


def _model_type(folder: Path) -> str:
    path = folder / "config.json"
    return str(json.loads(path.read_text("utf-8")).get("model_type", "")) if path.is_file() else ""
