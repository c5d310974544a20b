"""V4 and V4.1: tool results are part of the user's turn, reasoning is shown again where there are tools, and the prompt says how
hard to think.

Equal to the program that their folders ship (encoding/encoding_dsv4*.py), from which only the words are taken.
"""

import json
from pathlib import Path
from typing import Any

from msgspec import Struct

from holdfast.dialect.draft import Draft
from holdfast.dialect.dsml import Tags
from holdfast.dialect.parser import DSML
from holdfast.dialect.speaker import EOS
from holdfast.dialect.turns import (
    ASSISTANT,
    END_THINK,
    JSON_LINE,
    THINK,
    USER,
    DsmlDialect,
    add_tools,
    resume,
    said_by,
    shown,
)
from holdfast.dialect.wording import Wording
from holdfast.domain.dialect import Message, Tool

SYSTEM = "<｜System｜>"
TAGS = Tags("tool_calls", "invoke", "parameter")
TAGS_V41 = Tags(" calls", " invoke", " parameter")


class Turn(Struct):
    """A system's, an assistant's, or a user's that holds tool results as well."""

    role: str
    message: Message
    blocks: list[Message]


class V4Dialect(DsmlDialect):
    """`wording` is its folder's encoder. V4.1 marks its systems, and a system in mid-conversation is answered as a user is."""

    def __init__(self, folder: Path, wording: Wording) -> None:
        self._marked = wording.get("SYSTEM_SP_TOKEN", "") == SYSTEM
        super().__init__(folder, TAGS_V41 if self._marked else TAGS, (SYSTEM,) if self._marked else ())
        self._tools = wording.text("TOOLS_TEMPLATE")
        tags = self._tags
        self._words = {"dsml_token": DSML, "thinking_start_token": THINK, "thinking_end_token": END_THINK}
        self._words |= {
            "tc_block_name": tags.block,
            "tool_call_tag_name": tags.invoke,
            "tool_parameter_tag_name": tags.parameter,
        }
        self._efforts = _efforts(wording)

    def render(
        self, messages: list[Message], tools: list[Tool], thinking: bool, json_mode: bool, effort: str = ""
    ) -> list[int]:
        """Prompt ids, ending where the model is to go on.

        Raises:
            BadRequest: there is nothing to answer.
        """
        turns = _turns(said_by(messages, bool(tools) or json_mode))
        asked = max((i for i, turn in enumerate(turns) if self._asks(turn, i)), default=-1)
        draft = self._draft()
        urged = self._efforts.get(effort, self._efforts.get("", "")) if thinking else ""
        if self._marked and (urged or turns[0].role == "system"):
            draft.write(SYSTEM)
        draft.write(urged)
        for i, turn in enumerate(turns):
            following = turns[i + 1].role if i + 1 < len(turns) else ""
            if turn.role == "assistant":
                self._answer(draft, turn.message, thinking and (bool(tools) or i > asked), not following)
            elif turn.role == "system":
                if self._marked and i:
                    draft.write(SYSTEM)
                draft.say(turn.message.content)
                if i == 0:
                    self._first(draft, tools, json_mode)
            else:
                _ask(draft, turn.blocks)
            if self._asks(turn, i) and following in ("", "assistant"):
                draft.write(ASSISTANT + (THINK if thinking and (tools or i >= asked) else END_THINK))
        return draft.ids()

    def _asks(self, turn: Turn, i: int) -> bool:
        return turn.role == "user" or (self._marked and turn.role == "system" and i > 0)

    def _answer(self, draft: Draft, message: Message, thought: bool, last: bool) -> None:
        if message.prefix and last:
            resume(draft, message, thought)
            return
        if thought:
            draft.say(message.reasoning)
            draft.write(END_THINK)
        draft.say(message.content)
        self._call(draft, message)
        draft.write(EOS)

    def _first(self, draft: Draft, tools: list[Tool], json_mode: bool) -> None:
        """What follows the first system's words."""
        if tools:
            schemas = [json.dumps(shown(tool), ensure_ascii=False) for tool in tools]
            add_tools(draft, self._tools, self._words, schemas)
        if json_mode:
            draft.say("\n\n" + JSON_LINE)


def _ask(draft: Draft, blocks: list[Message]) -> None:
    draft.write(USER)
    for i, block in enumerate(blocks):
        if i:
            draft.write("\n\n")
        if block.role == "tool":
            draft.write("<tool_result>")
        draft.say(block.content)
        if block.role == "tool":
            draft.write("</tool_result>")


def _turns(messages: list[Message]) -> list[Turn]:
    """Users' and tools' messages in a row are one turn, its results in the order of the calls."""
    turns: list[Turn] = []
    order: dict[str, int] = {}
    for message in messages:
        role = "user" if message.role == "tool" else message.role
        if role == "user" and turns and turns[-1].role == "user":
            turns[-1].blocks.append(message)
        else:
            turns.append(Turn(role, message, [message]))
    for turn in turns:
        if turn.message.calls:
            order = {call.id: i for i, call in enumerate(turn.message.calls) if call.id}
        results = [block for block in turn.blocks if block.role == "tool"]
        if len(results) > 1 and order:
            results.sort(key=lambda block: order.get(block.call_id, 0))
            ahead = iter(results)
            turn.blocks = [next(ahead) if block.role == "tool" else block for block in turn.blocks]
    return turns


def _efforts(wording: Wording) -> dict[str, str]:
    """What the prompt begins with, by effort; under no name what it begins with when none is asked for."""
    template = wording.get("REASONING_EFFORT_TEMPLATE", "")
    budgets: Any = wording.get("REASONING_EFFORT_MAPPINGS", {})
    if template and isinstance(budgets, dict):
        found = {str(effort): str(template).format(budget=budget) for effort, budget in budgets.items()}
        return found | {"": found.get(str(wording.get("DEFAULT_REASONING_EFFORT", "high")), "")}
    return {"max": str(wording.get("REASONING_EFFORT_MAX", ""))}
