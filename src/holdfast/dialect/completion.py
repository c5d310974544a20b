"""Plain prompts: text as it stands, or a gap to fill. No chat format, so one room serves all generations."""

from holdfast.dialect.vocabulary import Vocabulary
from holdfast.domain.fault import BadRequest

GAP = ("<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>")  # before it, where it is, behind it


def plain_prompt(vocabulary: Vocabulary, bos: str, prompt: str, suffix: str | None) -> list[int]:
    """`bos` and the text, markers in it staying text; with a suffix, the gap between both to be filled.

    Raises:
        BadRequest: a suffix, and the vocabulary has no marks for a gap.
    """
    ids = [vocabulary.markers[bos]] if bos in vocabulary.markers else []
    if suffix is None:
        return ids + vocabulary.encode(prompt)
    marks = [vocabulary.markers.get(mark) for mark in GAP]
    begin, hole, end = marks
    if begin is None or hole is None or end is None:
        why = "This model's vocabulary has no marks for text with a gap; leave out suffix."
        raise BadRequest(why, "suffix")
    return [*ids, begin, *vocabulary.encode(prompt), hole, *vocabulary.encode(suffix), end]
