"""Ids to reasoning, content and tool calls, by markers. One machine serves all generations that mark with single tokens.

Its state is a function of the ids fed, so it can be rebuilt from any transcript. Calls are handed over whole.
"""

import codecs
from enum import IntEnum

from msgspec import Struct

from holdfast.dialect.vocabulary import Vocabulary
from holdfast.domain.dialect import Said, ThinkingEnd, ToolCall

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
        )


class Channel(IntEnum):
    REASONING = 0
    CONTENT = 1
    CALL = 2


class MarkerParser:
    """`trims`: drop the line breaks that R1 writes after each thinking mark."""

    def __init__(self, vocabulary: Vocabulary, markers: Markers, reasoning: bool, trims: bool = False) -> None:
        self._vocabulary = vocabulary
        self._texts = vocabulary.texts
        self._markers = markers
        self._channel = Channel.REASONING if reasoning else Channel.CONTENT
        self._decoder = _utf8("replace")
        self._split = False  # the decoder holds part of a character
        self._trims = trims
        self._fresh = trims and reasoning
        self._name: str | None = None  # of the call being read, once its separator has come
        self._call = ""
        self._reasoning_tokens = 0

    @property
    def reasoning_tokens(self) -> int:
        return self._reasoning_tokens

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
        return said

    def end(self) -> Said:
        """Half a character becomes U+FFFD; half a call is handed over if its name is whole, else shown as text."""
        said = Said()
        self._settle(said)
        if self._channel == Channel.CALL and (self._call or self._name is not None):
            if self._name is None:
                said.content += self._call
            else:
                self._finish_call(said)
        self._channel = Channel.CONTENT
        self._call = ""
        return said

    def _say(self, text: str, said: Said) -> None:
        if self._channel == Channel.CALL:
            self._call += text
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
            self._turn(Channel.REASONING)
        elif token == markers.end_think:
            self._turn(Channel.CONTENT)
        elif token in (markers.calls_begin, markers.call_begin):
            self._channel = Channel.CALL
            self._name, self._call = None, ""
        elif token == markers.sep and self._channel == Channel.CALL and self._name is None:
            self._name, self._call = self._call, ""
        elif token == markers.call_end and self._name is not None:
            self._finish_call(said)
        elif token == markers.calls_end:
            self._channel = Channel.CONTENT
        elif token not in self._vocabulary.hidden:
            self._say(self._vocabulary.bytes_of(token).decode(), said)

    def _turn(self, channel: Channel) -> None:
        self._channel = channel
        self._fresh = self._trims

    def _finish_call(self, said: Said) -> None:
        """V3.1 writes name, separator, arguments; V3 and R1 write `function`, separator, name and a fenced JSON block."""
        name, arguments = self._name or "", self._call
        if name == "function":
            inner, fence, block = arguments.partition("\n```json\n")
            if fence:
                name, arguments = inner, block.removesuffix("```").rstrip("\n")
        said.calls += (ToolCall(name.strip(), arguments),)
        self._name, self._call = None, ""


def begins_reasoning(prompt_ids: list[int], markers: Markers, vocabulary: Vocabulary) -> bool:
    """Whether the answer to this prompt begins inside the reasoning: its last marker opens the thinking."""
    for token in reversed(prompt_ids):
        if token in vocabulary.marker_ids:
            return token == markers.think
    return False


def thinking_end(prompt_ids: list[int], markers: Markers, vocabulary: Vocabulary) -> ThinkingEnd | None:
    """How the reasoning ends that the answer to this prompt begins with; None when it begins with none.

    R1's prompts open it with a mark and a line break, and so it writes a line break before the closing mark and an empty line
    after it. V3.1's open it with the bare mark, and close it so.
    """
    if markers.end_think < 0 or not begins_reasoning(prompt_ids, markers, vocabulary):
        return None
    mark = (markers.end_think,)
    if prompt_ids[-1] == markers.think:
        return ThinkingEnd(markers.end_think, mark)
    return ThinkingEnd(markers.end_think, (*vocabulary.encode("\n"), *mark, *vocabulary.encode("\n\n")))
