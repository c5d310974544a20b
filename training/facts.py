"""The facts Pearl knows, each in many wordings. Some frames of each wording are never trained: the gate asks those."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random

import frames
from sample import Sample, bucket, user
from words import FACTS_FILE

HELD_FRAMES = 2
_FRAMES = {"T": frames.TERM, "Q": frames.NOUN, "H": frames.INDIRECT, "!": frames.DIRECT}


@dataclass(frozen=True)
class Wording:
    kind: str
    text: str
    held: tuple[str, ...]
    trained: tuple[str, ...]


@dataclass(frozen=True)
class Fact:
    wordings: tuple[Wording, ...]
    answer: str


def _wording(kind: str, text: str) -> Wording:
    if text.startswith("!"):
        kind, text = "!", text[1:]
    every = _FRAMES[kind]
    # A bare "{x}" stays trained: it is the wording itself, so that every wording has been seen in some frame.
    order = sorted(
        (frame for frame in every if frame not in ("{x}", "{x}?")), key=lambda f: bucket(text, f) * 1000 + len(f)
    )
    held = tuple(order[:HELD_FRAMES])
    return Wording(kind, text, held, tuple(frame for frame in every if frame not in held))


def load(path: Path = FACTS_FILE) -> tuple[Fact, ...]:
    facts = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        kind, rest = line.split(": ", 1)
        left, answer = rest.rsplit(" => ", 1)
        facts.append(Fact(tuple(_wording(kind, text.strip()) for text in left.split(" | ")), answer.strip()))
    return tuple(facts)


FACTS = load()


def _drop_small_words(text: str, rng: Random) -> str:
    small = {"the", "a", "an", "of", "in", "is", "to", "me", "what", "does"}
    kept = [w for w in text.split() if w.lower() not in small or rng.random() < 0.5]
    return " ".join(kept) if len(kept) > 1 else text


def fact(rng: Random, held: bool = False) -> Sample:
    known = rng.choice(FACTS)
    return ask(known, rng, held)


def ask(known: Fact, rng: Random, held: bool) -> Sample:
    wording = rng.choice(known.wordings)
    frame = rng.choice(wording.held if held else wording.trained)
    text = wording.text
    if wording.kind == "!" and not frame.startswith("{"):
        text = text[0].lower() + text[1:]
    if held:
        question = frame.format(x=text)
    else:
        question = frames.fill(frame, rng, x=text)
        if rng.random() < 0.08:
            question = _drop_small_words(question, rng)
        if rng.random() < 0.12:
            question = question.lower()
    question = question[0].upper() + question[1:] if held else question
    return Sample("facts", (user(question),), known.answer)


def every_held(rng: Random) -> list[Sample]:
    """One unseen paraphrase for each fact."""
    return [ask(known, rng, held=True) for known in FACTS]
