"""What one training case is: a chat, the right continuation, and what the gate expects of it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from typing import Any

Message = dict[str, Any]
Tool = dict[str, Any]


@dataclass(frozen=True)
class ToolCall:
    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Sample:
    task: str
    messages: tuple[Message, ...]
    answer: str = ""
    reasoning: str = ""
    thinking: bool = False
    json_mode: bool = False
    tools: tuple[Tool, ...] = ()
    call: ToolCall | None = None
    held_out: bool = False
    kind: str = "exact"
    value: Any = field(default=None)

    def thought(self, reasoning: str) -> Sample:
        return replace(self, thinking=True, reasoning=reasoning)

    def case(self) -> dict[str, Any]:
        """The gate's form of this sample."""
        out: dict[str, Any] = {"task": self.task, "messages": list(self.messages)}
        if self.tools:
            out["tools"] = list(self.tools)
        if self.thinking:
            out["thinking"] = True
        if self.json_mode:
            out["json_mode"] = True
        if self.call is not None:
            out["expect"] = {"kind": "tool_call", "value": {"name": self.call.name, "arguments": self.call.arguments}}
        else:
            out["expect"] = {"kind": self.kind, "value": self.answer if self.value is None else self.value}
        return out


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def bucket(*parts: object) -> int:
    """0..99, the same on every machine: below 8 is kept out of training, for the gate."""
    text = "\x1f".join(str(part) for part in parts)
    return hashlib.blake2s(text.encode(), digest_size=4).digest()[0] * 100 // 256
