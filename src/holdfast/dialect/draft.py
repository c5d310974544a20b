"""A prompt being written: the format's own words, whose markers count, and what people say, whose markers are text.

Text is tokenised stretch by stretch between markers, as a model saw it in training.
"""

import re

from holdfast.dialect.vocabulary import Vocabulary


def marker_pattern(vocabulary: Vocabulary) -> str:
    """One group that matches any marker, the longest first, with the white space that some of them swallow."""
    ways = []
    for marker in sorted(vocabulary.markers, key=len, reverse=True):
        left, right = vocabulary.greedy[marker]
        ways.append((r"\s*" if left else "") + re.escape(marker) + (r"\s*" if right else ""))
    return f"({'|'.join(ways)})"


class Draft:
    """`cut` is the compiled marker_pattern."""

    def __init__(self, vocabulary: Vocabulary, cut: re.Pattern[str]) -> None:
        self._vocabulary = vocabulary
        self._cut = cut
        self._ids: list[int] = []
        self._text: list[str] = []  # since the last marker

    def write(self, text: str) -> None:
        """The format's own words."""
        for i, part in enumerate(self._cut.split(text)):
            if i % 2:
                self._settle()
                self._ids.append(self._vocabulary.markers[part.strip()])
            elif part:
                self._text.append(part)

    def say(self, text: str) -> None:
        """What somebody said."""
        self._text.append(text)

    def ids(self) -> list[int]:
        self._settle()
        return self._ids

    def _settle(self) -> None:
        if self._text:
            self._ids += self._vocabulary.encode("".join(self._text))
            self._text = []
