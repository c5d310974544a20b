"""Pearl's own chat format: DeepSeek-V3.1's markers. A hand-written renderer, equal to the folder's chat_template.jinja.

Text is tokenised stretch by stretch between markers, and markers are put in by id: whatever a client types stays text.
"""

import json
from pathlib import Path

from holdfast.dialect.grammar import Grammars, bare
from holdfast.dialect.parser import MarkerParser, Markers, begins_reasoning, thinking_end
from holdfast.dialect.vocabulary import ForeignVocabulary, Vocabulary
from holdfast.domain.dialect import Form, Message, ThinkingEnd, Tool
from holdfast.domain.fault import BadRequest

JSON_LINE = "Answer with one JSON object."
END_THINK = "</think>"


class PearlDialect:
    """Renders and parses for a folder whose chat template is Pearl's."""

    def __init__(self, folder: Path) -> None:
        self._vocabulary = Vocabulary(folder)
        find = self._vocabulary.markers.get
        names = (
            "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>",
            "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>",
        )  # fmt: skip
        ids = [find(name, -1) for name in names]
        self._markers = Markers.of(self._vocabulary)
        if -1 in ids or -1 in (self._markers.think, self._markers.end_think, self._markers.sep):
            raise ForeignVocabulary(f"{folder / 'tokenizer.json'} lacks markers of Pearl's chat format")
        self._bos, self._eos, self._user, self._assistant, self._output_begin, self._output_end = ids
        self._grammars = Grammars(self._vocabulary, self._markers, bare)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        return (self._eos,)

    @property
    def vocab_size(self) -> int:
        return len(self._vocabulary)

    @property
    def token_bytes_max(self) -> int:
        return self._vocabulary.token_bytes_max

    def bytes_of(self, token: int) -> bytes:
        return self._vocabulary.bytes_of(token)

    def parser(self, prompt_ids: list[int]) -> MarkerParser:
        return MarkerParser(
            self._vocabulary, self._markers, begins_reasoning(prompt_ids, self._markers, self._vocabulary)
        )

    def thinking_end(self, prompt_ids: list[int]) -> ThinkingEnd | None:
        return thinking_end(prompt_ids, self._markers, self._vocabulary)

    def grammar(self, prompt_ids: list[int], form: Form) -> str:
        return self._grammars.write(prompt_ids, form)

    def render(self, messages: list[Message], tools: list[Tool], thinking: bool, json_mode: bool) -> list[int]:
        """Prompt ids, ending where the model is to go on.

        Raises:
            BadRequest: the last turn leaves nothing to answer.
        """
        encode, markers = self._vocabulary.encode, self._markers
        mode = markers.think if thinking else markers.end_think
        ids = [self._bos]
        lead = _system(messages, tools, json_mode)  # joins what an assistant says first: one stretch of text
        after_user = answerable = False
        last = len(messages) - 1
        for i, message in enumerate(messages):
            role = message.role
            if role == "user":
                if lead:
                    ids += encode(lead)
                    lead = ""
                ids.append(self._user)
                ids += encode(message.content)
                after_user = answerable = True
            elif role == "assistant":
                opened = message.prefix and i == last
                if after_user:
                    ids += (self._assistant, mode if opened else markers.end_think)
                ids += self._spoken(message, lead)
                lead = ""
                if not opened:
                    ids.append(self._eos)
                after_user, answerable = False, opened
            elif role == "tool":
                ids += (*encode(lead), self._output_begin, *encode(message.content), self._output_end)
                lead = ""
                after_user, answerable = False, True
        if not answerable:
            why = "messages must end with a user's or a tool's turn, or with an assistant's whose prefix is true."
            raise BadRequest(why, "messages")
        if after_user:
            ids += (self._assistant, mode)
        return ids

    def _spoken(self, message: Message, lead: str) -> list[int]:
        """An assistant's turn: its reasoning is not shown again."""
        encode, markers = self._vocabulary.encode, self._markers
        _, mark, after = message.content.partition(END_THINK)
        ids = encode(lead + (after if mark else message.content))
        if message.calls:
            ids = [*ids, markers.calls_begin]
            for call in message.calls:
                ids += (markers.call_begin, *encode(call.name), markers.sep, *encode(call.arguments), markers.call_end)
            ids.append(markers.calls_end)
        return ids


def _system(messages: list[Message], tools: list[Tool], json_mode: bool) -> str:
    """All system and developer turns, the tools and the JSON line, a blank line between."""
    blocks = [m.content for m in messages if m.role in ("system", "developer")]
    if tools:
        lines = ["Tools:"]
        for tool in tools:
            schema = json.dumps(tool.parameters or {}, ensure_ascii=False)
            lines.append(f"- {tool.name}: {tool.description} {schema}")
        blocks.append("\n".join(lines))
    if json_mode:
        blocks.append(JSON_LINE)
    if len(blocks) == 1:
        return blocks[0]
    text = ""
    for block in blocks:
        text = (
            f"{text}\n\n{block}" if text else block
        )  # as the template does: nothing before the first that says something
    return text
