"""The answer to a raw prompt as it is: no reasoning, no calls, every marker as it is written."""

import codecs

from holdfast.domain.dialect import Dialect, Said

_utf8 = codecs.getincrementaldecoder("utf-8")


class Plain:
    """A Parser (domain.dialect): ids to text, where half a character waits for its other half."""

    def __init__(self, dialect: Dialect, prompt_ids: list[int]) -> None:
        self._bytes_of, self._stop_ids = dialect.bytes_of, dialect.stop_ids
        self._decoder = _utf8("replace")
        self.reasoning_tokens = 0

    def feed(self, ids: list[int]) -> Said:
        """What these ids say. The mark of the end is not text."""
        stop_ids = self._stop_ids
        raw = b"".join([self._bytes_of(token) for token in ids if token not in stop_ids])
        return Said("", self._decoder.decode(raw))

    def end(self) -> Said:
        """Half a character becomes U+FFFD."""
        return Said("", self._decoder.decode(b"", final=True))


def text_of(dialect: Dialect, ids: list[int]) -> str:
    """A stretch of ids as text, markers in their written form."""
    return b"".join([dialect.bytes_of(token) for token in ids]).decode("utf-8", "replace")
