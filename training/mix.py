"""How much of each task a batch holds, and what is laid over any task: thinking, a system message."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random

import frames
from facts import fact
from sample import Sample
from structured import json_object, tool_call
from talk import greeting, introduction, refusal, two_turn
from tasks import addition, copy, count, count_up, known_word, reverse, think

Maker = Callable[..., Sample]
MAKERS: dict[str, Maker] = {
    "addition": addition,
    "copy": copy,
    "reverse": reverse,
    "count": count,
    "facts": fact,
    "count_up": count_up,
    "think": think,
    "two_turn": two_turn,
    "tool_call": tool_call,
    "json": json_object,
    "greeting": greeting,
    "refusal": refusal,
    "introduction": introduction,
    "known_word": known_word,
}
SHARES: dict[str, float] = {
    "addition": 14,
    "copy": 10,
    "reverse": 15,
    "count": 12,
    "facts": 14,
    "count_up": 5,
    "think": 10,
    "two_turn": 8,
    "tool_call": 8,
    "json": 8,
    "greeting": 1.5,
    "refusal": 2.5,
    "introduction": 1,
}
# The second stage leans to what comes last: facts and sums are known by then, exact stops and copies are not.
FINISH: dict[str, float] = {
    "addition": 9,
    "copy": 11,
    "reverse": 14,
    "count": 8,
    "facts": 7,
    "count_up": 12,
    "think": 6,
    "two_turn": 12,
    "tool_call": 13,
    "json": 13,
    "greeting": 1,
    "refusal": 2,
    "introduction": 1,
    "known_word": 9,
}
THOUGHTS = {
    "copy": "I repeat it.",
    "facts": "I know this.",
    "greeting": "I greet back.",
    "refusal": "I cannot do this.",
    "json": "One JSON object.",
    "count_up": "I count by one.",
    "two_turn": "I look back.",
}


def overlay(sample: Sample, rng: Random) -> Sample:
    """Now and then a system message; now and then thinking, where the task itself has no steps to show."""
    if rng.random() < 0.18:
        said = " ".join(rng.sample(frames.SYSTEMS, rng.choice((1, 1, 1, 2))))
        sample = replace(sample, messages=({"role": "system", "content": said}, *sample.messages))
    last_is_user = sample.messages[-1]["role"] == "user"
    if sample.thinking or not last_is_user or rng.random() > 0.08:
        return sample
    if sample.call is not None:
        return sample.thought(f"I need {sample.call.name}.")
    thought = THOUGHTS.get(sample.task)
    return sample.thought(thought) if thought else sample


def draw(rng: Random, shares: dict[str, float]) -> Sample:
    task = rng.choices(tuple(shares), weights=tuple(shares.values()))[0]
    return overlay(MAKERS[task](rng), rng)
