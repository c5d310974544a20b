"""Calls while they are being written: pieces for whoever reads live, and each one whole at its end."""

from holdfast.domain.dialect import CallPart, Said, ToolCall


class Calls:
    """The calls of one answer, one at a time. `flush` hands over the pieces since the last flush, as one part a call."""

    def __init__(self) -> None:
        self._index = -1
        self._name = ""
        self._written: list[str] = []
        self._news: list[str] = []
        self._named = False  # the name is news, too
        self.open = False

    def begin(self, name: str) -> None:
        """A call whose name is whole."""
        self._index += 1
        self._name, self._written, self._news = name, [], []
        self._named = self.open = True

    def add(self, text: str) -> None:
        """More of its arguments, which can't change any more."""
        if text:
            self._written.append(text)
            self._news.append(text)

    def flush(self, said: Said) -> None:
        if self._named or self._news:
            said.parts += (CallPart(self._index, self._name if self._named else "", "".join(self._news)),)
            self._news = []
            self._named = False

    def finish(self, said: Said) -> None:
        """The call ends, as far as it has come."""
        self.flush(said)
        said.calls += (ToolCall(self._name, "".join(self._written)),)
        self.open = False
