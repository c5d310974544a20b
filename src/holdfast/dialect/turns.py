"""What V3.2 and V4 have in common: DSML, an encoder's words, and how a conversation must end."""

import re
from pathlib import Path

from holdfast.dialect.draft import Draft, marker_pattern
from holdfast.dialect.dsml import DsmlParser, Patterns, Tags, plain_texts, written
from holdfast.dialect.dsml_grammar import DsmlGrammars
from holdfast.dialect.parser import MarkerParser, Markers, begun_reasoning
from holdfast.dialect.speaker import BOS, EOS, Speaker, stop_ids_of
from holdfast.dialect.vocabulary import ForeignVocabulary, Vocabulary
from holdfast.domain.dialect import Message, Tool
from holdfast.domain.fault import BadRequest

JSON_LINE = "Answer with one JSON object."
USER, ASSISTANT, THINK, END_THINK = "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"
LAST = "messages must end with a user's or a tool's turn, or with an assistant's whose prefix is true."


class DsmlDialect(Speaker):
    """A dialect whose calls are DSML; its generation's room renders."""

    def __init__(self, folder: Path, tags: Tags, needs: tuple[str, ...] = ()) -> None:
        vocabulary = Vocabulary(folder)
        missing = [
            mark for mark in (BOS, EOS, USER, ASSISTANT, THINK, END_THINK, *needs) if mark not in vocabulary.markers
        ]
        if missing:
            raise ForeignVocabulary(f"{folder / 'tokenizer.json'} lacks {' and '.join(missing)} of this chat format")
        marks = Markers.of(vocabulary)
        thinking = Markers(marks.think, marks.end_think, dsml=marks.dsml)
        super().__init__(vocabulary, DsmlGrammars(vocabulary, thinking, tags), stop_ids_of(folder, vocabulary))
        self._markers = thinking
        self._tags = tags
        self._patterns = Patterns(tags)
        self._plain = plain_texts(vocabulary.texts)
        self._cut = re.compile(marker_pattern(vocabulary))

    def parser(self, prompt_ids: list[int]) -> DsmlParser:
        reasoning = begun_reasoning(prompt_ids, self._markers, self._vocabulary) is not None
        return DsmlParser(MarkerParser(self._vocabulary, self._markers, reasoning), self._patterns, self._plain)

    def _draft(self) -> Draft:
        draft = Draft(self._vocabulary, self._cut)
        draft.write(BOS)
        return draft

    def _call(self, draft: Draft, message: Message) -> None:
        if message.calls:
            for own, text in written(self._tags, [(call.name, call.arguments) for call in message.calls]):
                (draft.write if own else draft.say)(text)


def said_by(messages: list[Message], extra: bool) -> list[Message]:
    """Developers speak as systems do: DeepSeek's own developer role belongs to its search agents, and its API knows none.
    With `extra`, the conversation begins with a system turn, so that tools and wishes have a place.

    Raises:
        BadRequest: it leaves nothing to answer.
    """
    turns = [Message("system", m.content) if m.role == "developer" else m for m in messages]
    if not turns or not (turns[-1].role in ("user", "tool") or (turns[-1].role == "assistant" and turns[-1].prefix)):
        raise BadRequest(LAST, "messages")
    return [Message("system"), *turns] if extra and turns[0].role != "system" else turns


def add_tools(draft: Draft, template: str, words: dict[str, str], schemas: list[str]) -> None:
    """An encoder's words about tools, around the schemas."""
    before, _, after = template.partition("{tool_schemas}")
    draft.write("\n\n" + before.format_map(words))
    draft.say("\n".join(schemas))
    draft.write(after.format_map(words))


def shown(tool: Tool) -> dict[str, object]:
    """A tool as clients write it."""
    found: dict[str, object] = {"name": tool.name}
    if tool.description:
        found["description"] = tool.description
    if tool.parameters is not None:
        found["parameters"] = tool.parameters
    return found


def resume(draft: Draft, message: Message, thinking: bool) -> None:
    """An opened turn: it goes on thinking, or saying what its content begins. The thinking mark stands already."""
    if thinking:
        draft.say(message.reasoning)
        if message.content:
            draft.write(END_THINK)
    draft.say(message.content)
