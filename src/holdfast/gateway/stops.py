"""Stop strings that may span tokens: text is held back only as long as it could be the beginning of one."""


class Stops:
    """Lets text through up to, and not including, the first stop string."""

    def __init__(self, strings: tuple[str, ...]) -> None:
        self._strings = strings
        self._held = ""
        self.hit = False
        self.which = ""  # of the strings was hit

    def feed(self, text: str) -> str:
        """What may be shown now. After a hit nothing more is let through."""
        if self.hit:
            return ""
        text = self._held + text
        found = [(at + len(s), at, s) for s in self._strings if (at := text.find(s)) >= 0]
        if found:  # the one that ends first, so that it makes no difference how the text was cut
            self.hit = True
            self._held = ""
            _, at, self.which = min(found)
            return text[:at]
        keep = max((self._begun(text, s) for s in self._strings), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> str:
        """What was held back, when nothing more will come."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _begun(text: str, string: str) -> int:
        """The length of the longest end of `text` that begins `string` without completing it."""
        for size in range(min(len(string) - 1, len(text)), 0, -1):
            if text.endswith(string[:size]):
                return size
        return 0
