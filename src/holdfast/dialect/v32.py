"""V3.2: thinks between tool calls, so its reasoning since the last question is shown again; calls are DSML, results a block.

Equal to the program that its folders ship (encoding/encoding_dsv32.py), from which only the words are taken.
"""

import json
from pathlib import Path

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
from holdfast.domain.fault import BadRequest

TAGS = Tags("function_calls", "invoke", "parameter")
WORDS = {"dsml_token": DSML, "thinking_start_token": THINK, "thinking_end_token": END_THINK}


class V32Dialect(DsmlDialect):
    """`wording` is its folder's encoder."""

    def __init__(self, folder: Path, wording: Wording) -> None:
        super().__init__(folder, TAGS)
        self._tools = wording.text("TOOLS_SYSTEM_TEMPLATE")

    def render(
        self, messages: list[Message], tools: list[Tool], thinking: bool, json_mode: bool, effort: str = ""
    ) -> list[int]:
        """Prompt ids, ending where the model is to go on.

        Raises:
            BadRequest: results without calls, or nothing to answer.
        """
        turns = said_by(messages, bool(tools) or json_mode)
        asked = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=-1)
        draft = self._draft()
        owed = 0  # results of calls that have not come
        for i, turn in enumerate(turns):
            following = turns[i + 1].role if i + 1 < len(turns) else ""
            mark = THINK if thinking and i >= asked else END_THINK
            if turn.role == "system":
                draft.say(turn.content)
                if i == 0:
                    self._first(draft, tools, json_mode)
            elif turn.role == "user":
                draft.write(USER)
                draft.say(turn.content)
                draft.write(ASSISTANT + mark)
            elif turn.role == "tool":
                if not owed:
                    raise BadRequest(f"messages[{i}] is a tool's result without a call before it.", "messages")
                if turns[i - 1].role != "tool":
                    draft.write("\n\n<function_results>")
                draft.write("\n<result>")
                draft.say(turn.content)
                draft.write("</result>")
                owed -= 1
                if following != "tool":
                    draft.write("\n</function_results>\n\n" + mark)
            elif turn.prefix and not following:
                resume(draft, turn, thinking)
            else:
                if thinking and i > asked:
                    draft.say(turn.reasoning)
                    draft.write(END_THINK)
                draft.say(turn.content)
                self._call(draft, turn)
                draft.write(EOS)
                owed = len(turn.calls)
        return draft.ids()

    def _first(self, draft: Draft, tools: list[Tool], json_mode: bool) -> None:
        """What follows the first system's words."""
        if tools:
            schemas = [json.dumps(shown(tool), ensure_ascii=False) for tool in tools]
            add_tools(draft, self._tools, WORDS, schemas)
        if json_mode:
            draft.say("\n\n" + JSON_LINE)
