"""Ids to reasoning, content and tool calls, by markers. One machine serves all generations that mark with single tokens.

Its state is a function of the ids fed, so it can be rebuilt from any transcript. Calls are handed over as they come, and whole.
"""

import codecs
import re
from enum import IntEnum

from msgspec import Struct

from holdfast.dialect.calls import Calls
from holdfast.dialect.vocabulary import Vocabulary
from holdfast.domain.dialect import Said, ThinkingEnd

DSML = "｜DSML｜"  # V3.2 and V4 mark calls in text, with this in every tag
FENCE = "\n```json\n"  # V3 and R1 write `function`, separator, name, this, arguments, three backticks
_FENCE_END = re.compile(r"\n*`{0,3}\Z")  # what may be the end of the fence, or a part of it

_utf8 = codecs.getincrementaldecoder("utf-8")


class Markers(Struct, frozen=True):
    """The ids that steer. -1 stands for a marker that the vocabulary lacks."""

    think: int = -1
    end_think: int = -1
    calls_begin: int = -1
    calls_end: int = -1
    call_begin: int = -1
    call_end: int = -1
    sep: int = -1
    dsml: int = -1

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> "Markers":
        """Those that DeepSeek's vocabularies write as single tokens."""
        find = vocabulary.markers.get
        return cls(
            find("<think>", -1),
            find("</think>", -1),
            find("<｜tool▁calls▁begin｜>", -1),
            find("<｜tool▁calls▁end｜>", -1),
            find("<｜tool▁call▁begin｜>", -1),
            find("<｜tool▁call▁end｜>", -1),
            find("<｜tool▁sep｜>", -1),
            find(DSML, -1),
        )


class Channel(IntEnum):
    REASONING = 0
    CONTENT = 1
    CALL = 2


class Stage(IntEnum):
    """Where a call stands."""

    HEAD = 0  # before the separator
    NAME = 1  # behind `function` and the separator: the fence is still to come
    BARE = 2  # arguments
    FENCED = 3  # arguments that three backticks close


class MarkerParser:
    """`trims`: drop the line breaks that R1 writes after each thinking mark. `fenced`: it writes calls as V3 and R1 do."""

    def __init__(
        self, vocabulary: Vocabulary, markers: Markers, reasoning: bool, trims: bool = False, fenced: bool = False
    ) -> None:
        self._vocabulary = vocabulary
        self._texts = vocabulary.texts
        self._markers = markers
        self._channel = Channel.REASONING if reasoning else Channel.CONTENT
        self._decoder = _utf8("replace")
        self._split = False  # the decoder holds part of a character
        self._trims = trims
        self._fresh = trims and reasoning
        self._fenced = fenced
        self._stage = Stage.HEAD
        self._held = ""  # of the call being read: what may still change its meaning
        self._calls = Calls()
        self._reasoning_tokens = 0

    @property
    def reasoning_tokens(self) -> int:
        return self._reasoning_tokens

    @property
    def plain(self) -> bool:
        """Whether the next token's text is content as it stands."""
        return self._channel == Channel.CONTENT and not self._split and not self._fresh

    def feed(self, ids: list[int]) -> Said:
        """What these ids say, as far as it can't change any more."""
        if len(ids) == 1 and self._channel == Channel.CONTENT and not self._split and not self._fresh:
            token = ids[0]
            text = self._texts[token] if token < len(self._texts) else None
            if text is not None:
                return Said("", text)
        said = Said()
        for token in ids:
            if self._channel == Channel.REASONING:
                self._reasoning_tokens += 1
            text = self._texts[token] if token < len(self._texts) else ""
            if text is not None and not self._split:
                self._say(text, said)
            elif token in self._vocabulary.marker_ids:
                self._mark(token, said)
            else:
                raw = self._vocabulary.bytes_of(token)
                self._say(self._decoder.decode(raw), said)
                self._split = bool(self._decoder.getstate()[0])
        self._calls.flush(said)
        return said

    def end(self) -> Said:
        """Half a character becomes U+FFFD; half a call is handed over if its name is whole, else shown as text."""
        said = Said()
        self._settle(said)
        self._close(said)
        self._channel = Channel.CONTENT
        return said

    def _say(self, text: str, said: Said) -> None:
        if self._channel == Channel.CALL:
            self._write(text)
            return
        if self._fresh:
            text = text.lstrip("\n")
            self._fresh = not text
        if self._channel == Channel.REASONING:
            said.reasoning += text
        else:
            said.content += text

    def _settle(self, said: Said) -> None:
        """A channel ends: what the decoder still holds belongs to it."""
        if self._split:
            self._say(self._decoder.decode(b"", final=True), said)
            self._decoder.reset()
            self._split = False

    def _mark(self, token: int, said: Said) -> None:
        self._settle(said)
        markers = self._markers
        if token == markers.think:
            self._turn(Channel.REASONING, said)
        elif token == markers.end_think:
            self._turn(Channel.CONTENT, said)
        elif token in (markers.calls_begin, markers.call_begin):
            self._close(said)
            self._channel = Channel.CALL
        elif token == markers.sep and self._channel == Channel.CALL and self._stage == Stage.HEAD:
            self._separate()
        elif token == markers.call_end and self._channel == Channel.CALL:
            self._close(said)
        elif token == markers.calls_end:
            self._close(said)
            self._channel = Channel.CONTENT
        elif token == markers.dsml or token not in self._vocabulary.hidden:
            self._say(self._vocabulary.bytes_of(token).decode(), said)

    def _turn(self, channel: Channel, said: Said) -> None:
        self._close(said)
        self._channel = channel
        self._fresh = self._trims

    def _separate(self) -> None:
        name, self._held = self._held.strip(), ""
        if self._fenced and name == "function":
            self._stage = Stage.NAME
        else:
            self._calls.begin(name)
            self._stage = Stage.BARE

    def _write(self, text: str) -> None:
        """Text inside a call."""
        self._held += text
        if self._stage == Stage.NAME:
            name, fence, rest = self._held.partition(FENCE)
            if fence:
                self._calls.begin(name.strip())
                self._held = rest
                self._stage = Stage.FENCED
        sure = 0
        if self._stage == Stage.BARE:
            sure = len(self._held)
        elif self._stage == Stage.FENCED:
            tail = _FENCE_END.search(self._held)
            sure = tail.start() if tail else 0
        if sure:
            self._calls.add(self._held[:sure])
            self._held = self._held[sure:]

    def _close(self, said: Said) -> None:
        """The call ends, as far as it has come; text without a name is content, white space between calls is nothing."""
        held, self._held = self._held, ""
        if self._stage == Stage.HEAD:
            if held and not held.isspace():
                said.content += held
            return
        if self._stage == Stage.NAME:
            self._calls.begin("function")
        elif self._stage == Stage.FENCED:
            held = held.removesuffix("```").rstrip("\n")
        self._calls.add(held)
        self._calls.finish(said)
        self._stage = Stage.HEAD


def thinking_end(prompt_ids: list[int], markers: Markers, vocabulary: Vocabulary) -> ThinkingEnd | None:
    """How the reasoning ends that the answer to this prompt begins with; None when it begins with none.

    R1's prompts open it with a mark and a line break, and so it writes a line break before the closing mark and an empty line
    after it. V3.1's open it with the bare mark, and close it so.
    """
    begun = begun_reasoning(prompt_ids, markers, vocabulary)
    if markers.end_think < 0 or begun is None:
        return None
    mark = (markers.end_think,)
    if not begun or not vocabulary.bytes_of(begun[0]).startswith(b"\n"):
        return ThinkingEnd(markers.end_think, mark)
    return ThinkingEnd(markers.end_think, (*vocabulary.encode("\n"), *mark, *vocabulary.encode("\n\n")))


def begun_reasoning(prompt_ids: list[int], markers: Markers, vocabulary: Vocabulary) -> list[int] | None:
    """What the prompt holds of the reasoning that its answer begins with: its last marker opens the thinking, or None."""
    for at in range(len(prompt_ids) - 1, -1, -1):
        if prompt_ids[at] in vocabulary.marker_ids:
            return prompt_ids[at + 1 :] if prompt_ids[at] == markers.think else None
    return None
