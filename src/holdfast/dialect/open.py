"""Chooses the dialect of a model folder."""

from pathlib import Path

from holdfast.dialect.pearl import PearlDialect
from holdfast.dialect.template import TemplateDialect
from holdfast.domain.dialect import Dialect

PEARL = "{#- Pearl's chat template."  # the first words of the template that dialect/pearl.py repeats


def open_dialect(folder: Path) -> Dialect:
    """Pearl's own for a folder with her chat template, else the folder's template itself.

    Raises:
        ForeignVocabulary: its tokenizer can't be used here.
        OSError: a file is missing.
        ValueError: it has no chat template.
    """
    path = folder / "chat_template.jinja"
    if path.is_file() and path.read_text("utf-8").startswith(PEARL):
        return PearlDialect(folder)
    return TemplateDialect(folder)
