"""Chats to text, as the shipped chat template does it (a check compares the two), and answers to text."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sample import Message, Sample, Tool

BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT, THINK, END_THINK = "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"
CALLS_BEGIN, CALLS_END = "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>"
CALL_BEGIN, CALL_END, SEP = "<｜tool▁call▁begin｜>", "<｜tool▁call▁end｜>", "<｜tool▁sep｜>"
OUTPUTS_BEGIN, OUTPUTS_END = "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>"
OUTPUT_BEGIN, OUTPUT_END = "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>"
SPECIALS = (
    BOS,
    EOS,
    PAD,
    USER,
    ASSISTANT,
    THINK,
    END_THINK,
    CALLS_BEGIN,
    CALL_BEGIN,
    SEP,
    CALL_END,
    CALLS_END,
    OUTPUTS_BEGIN,
    OUTPUT_BEGIN,
    OUTPUT_END,
    OUTPUTS_END,
)
JSON_LINE = "Answer with one JSON object."


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def system_part(messages: Sequence[Message], tools: Sequence[Tool], json_mode: bool) -> str:
    blocks = [m.get("content") or "" for m in messages if m["role"] in ("system", "developer")]
    if tools:
        lines = ["Tools:"]
        for tool in tools:
            f = tool["function"]
            lines.append(f"- {f['name']}: {f.get('description') or ''} {_json(f.get('parameters') or {})}")
        blocks.append("\n".join(lines))
    if json_mode:
        blocks.append(JSON_LINE)
    return "\n\n".join(block for block in blocks if block)


def assistant_text(message: Message) -> str:
    content: str = message.get("content") or ""
    if END_THINK in content:
        content = content.split(END_THINK, 1)[1]
    calls = message.get("tool_calls") or ()
    if not calls:
        return content
    parts = [content, CALLS_BEGIN]
    for call in calls:
        arguments = call["function"]["arguments"]
        parts += [CALL_BEGIN, call["function"]["name"], SEP]
        parts += [arguments if isinstance(arguments, str) else _json(arguments), CALL_END]
    return "".join([*parts, CALLS_END])


def prompt(
    messages: Sequence[Message], tools: Sequence[Tool] = (), thinking: bool = False, json_mode: bool = False
) -> str:
    out = [BOS, system_part(messages, tools, json_mode)]
    after_user = False
    for message in messages:
        role = message["role"]
        if role == "user":
            out += [USER, message.get("content") or ""]
            after_user = True
        elif role == "assistant":
            out += [ASSISTANT + END_THINK if after_user else "", assistant_text(message), EOS]
            after_user = False
        elif role == "tool":
            out += [OUTPUT_BEGIN, message.get("content") or "", OUTPUT_END]
            after_user = False
    if after_user:
        out.append(ASSISTANT + (THINK if thinking else END_THINK))
    return "".join(out)


def completion(sample: Sample) -> str:
    thought = sample.reasoning + END_THINK if sample.thinking else ""
    if sample.call is None:
        return thought + sample.answer + EOS
    call = CALL_BEGIN + sample.call.name + SEP + _json(sample.call.arguments) + CALL_END
    return thought + CALLS_BEGIN + call + CALLS_END + EOS


def sample_prompt(sample: Sample) -> str:
    return prompt(sample.messages, sample.tools, sample.thinking, sample.json_mode)
