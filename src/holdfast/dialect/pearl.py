"""Pearl's own chat format: DeepSeek-V3.1's markers. A hand-written renderer, equal to the folder's chat_template.jinja.

Text is tokenised stretch by stretch between markers, and markers are put in by id: whatever a client types stays text.
"""

import json
from pathlib import Path

from holdfast.dialect.grammar import Grammars, bare
from holdfast.dialect.parser import MarkerParser, Markers, begun_reasoning
from holdfast.dialect.speaker import BOS, EOS, Speaker
from holdfast.dialect.vocabulary import ForeignVocabulary, Vocabulary
from holdfast.domain.dialect import Message, Tool
from holdfast.domain.fault import BadRequest

JSON_LINE = "Answer with one JSON object."
END_THINK = "</think>"


class PearlDialect(Speaker):
    """Renders and parses for a folder whose chat template is Pearl's."""

    def __init__(self, folder: Path) -> None:
        vocabulary = Vocabulary(folder)
        markers = Markers.of(vocabulary)
        names = (BOS, EOS, "<｜User｜>", "<｜Assistant｜>", "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>")
        ids = [vocabulary.markers.get(name, -1) for name in names]
        if -1 in ids or -1 in (markers.think, markers.end_think, markers.sep):
            raise ForeignVocabulary(f"{folder / 'tokenizer.json'} lacks markers of Pearl's chat format")
        self._begin, self._eos, self._user, self._assistant, self._output_begin, self._output_end = ids
        super().__init__(vocabulary, Grammars(vocabulary, markers, bare), (self._eos,))

    def parser(self, prompt_ids: list[int]) -> MarkerParser:
        reasoning = begun_reasoning(prompt_ids, self._markers, self._vocabulary) is not None
        return MarkerParser(self._vocabulary, self._markers, reasoning)

    def render(
        self, messages: list[Message], tools: list[Tool], thinking: bool, json_mode: bool, effort: str = ""
    ) -> list[int]:
        """Prompt ids, ending where the model is to go on.

        Raises:
            BadRequest: the last turn leaves nothing to answer.
        """
        encode, markers = self._vocabulary.encode, self._markers
        mode = markers.think if thinking else markers.end_think
        ids = [self._begin]
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
                if opened and thinking and after_user and message.reasoning:
                    ids += self._thought(message)
                else:
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

    def _thought(self, message: Message) -> list[int]:
        """An opened turn that has thought already: it goes on thinking, or saying what its content begins."""
        encode = self._vocabulary.encode
        ids = encode(message.reasoning)
        return [*ids, self._markers.end_think, *encode(message.content)] if message.content else ids

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
