"""What the demo asks: long answers, so that something is always underway, mixed with short ones; greedy and sampled.

Every question carries a seed, and asks for logprobs, since these name each token of the answer.
"""

from typing import Any

import msgspec

from holdfast.drill.client import Question

LONG = ("Count from 7 to 68.", "Count from 21 to 90.", "Count from 103 to 171.", "Count from 1 to 64.")
THINKING = ("What is 47 + 38?", "Reverse the word lantern.", "How many e in elephant?")
SHORT = (
    "What is Holdfast?",
    "What happens when a replica dies?",
    "What happens when a replica freezes?",
    "Who are you?",
)
TEMPERATURES = (0.0, 0.8)
ANSWER_TOKENS_MAX = 320


def question(case: int, model: str, prompt: str, **more: Any) -> Question:
    """One streamed request with usage at its end; `more` are further fields of the body."""
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "stream": True,
        "stream_options": {"include_usage": True},
        "seed": 1000 + case,
        **more,
    }
    return Question(case=case, prompt=prompt, body=msgspec.json.encode(body))


def mixed(model: str) -> list[Question]:
    """The demo's questions; the long ones come twice as often as they stand here, see `order`."""
    asked: list[Question] = []
    for prompts, thinking in ((LONG, "disabled"), (THINKING, "enabled"), (SHORT, "disabled")):
        for prompt in prompts:
            for temperature in TEMPERATURES:
                more = {"temperature": temperature, "max_tokens": ANSWER_TOKENS_MAX, "logprobs": True}
                asked.append(question(len(asked), model, prompt, thinking={"type": thinking}, **more))
    return asked


def turn(questions: list[Question], stream: int, number: int) -> Question:
    """What a stream asks as its n-th question: every other one is long, and neighbours ask different things."""
    long = [one for one in questions if one.prompt in LONG]
    rest = [one for one in questions if one.prompt not in LONG]
    kind = long if (stream + number) % 2 == 0 else rest
    return kind[(stream * 5 + number // 2) % len(kind)]
