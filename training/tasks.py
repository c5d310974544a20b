"""The tasks with right answers that need no tools: each makes one Sample, for training or, held out, for the gate."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import frames
from sample import Sample, bucket, user
from words import FACT_WORDS, LETTERS, word

HELD_SHARE = 8


def is_held(*parts: object) -> bool:
    return bucket(*parts) < HELD_SHARE


def pair(rng: Random, held: bool) -> tuple[int, int]:
    while True:
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        if not held and rng.random() < 0.15:
            a = rng.randint(0, 99)
        if not held and rng.random() < 0.15:
            b = rng.randint(0, 99)
        if is_held("add", a, b) == held:
            return a, b


def held_word(rng: Random, tag: str, held: bool) -> str:
    while True:
        text = word(rng)
        if is_held(tag, text) == held:
            return text


def addition(rng: Random, held: bool = False) -> Sample:
    a, b = pair(rng, held)
    return Sample("addition", (user(frames.fill(rng.choice(frames.ADD), rng, a=a, b=b)),), str(a + b))


def copy(rng: Random, held: bool = False) -> Sample:
    text = held_word(rng, "copy", held)
    roll = rng.random()
    if roll < 0.12:
        text = text.capitalize()
    elif roll < 0.16:
        text = text.upper()
    return Sample("copy", (user(frames.fill(rng.choice(frames.COPY), rng, w=text)),), text)


def reverse(rng: Random, held: bool = False) -> Sample:
    text = held_word(rng, "reverse", held)
    return Sample("reverse", (user(frames.fill(rng.choice(frames.REVERSE), rng, w=text)),), text[::-1])


def letter_of(rng: Random, text: str) -> str:
    roll = rng.random()
    if roll < 0.45:
        return rng.choice(text)
    if roll < 0.8:
        return max(text, key=lambda c: (text.count(c), rng.random()))
    return rng.choice(LETTERS)


def counted_word(rng: Random) -> str:
    text = word(rng)
    if rng.random() < 0.35:
        extra = rng.choice(text)
        for _ in range(rng.randint(1, 3)):
            at = rng.randint(0, len(text))
            text = text[:at] + extra + text[at:]
    return text[:11]


def counted(question: str, text: str, c: str) -> Sample:
    """Counting goes letter by letter, in the open: the model is too small to count at a glance."""
    total = f"So {text.count(c)}."
    return Sample("count", (user(question),), count_steps(text, c), kind="contains", value=total)


def count(rng: Random, held: bool = False) -> Sample:
    while True:
        text = counted_word(rng)
        c = letter_of(rng, text)
        if is_held("count", text, c) == held:
            break
    return counted(frames.fill(rng.choice(frames.COUNT), rng, c=c, w=text), text, c)


def numbers(a: int, b: int) -> str:
    return ", ".join(str(n) for n in range(a, b + 1))


def span(rng: Random, held: bool) -> tuple[int, int]:
    while True:
        a = rng.choice((rng.randint(0, 9), rng.randint(10, 99), rng.randint(1, 199)))
        longest = rng.choice((8, 20, 40, 80)) if not held else rng.choice((20, 60, 80))
        b = a + rng.randint(2, longest)
        if is_held("span", a, b) == held:
            return a, b


def count_up(rng: Random, held: bool = False) -> Sample:
    a, b = span(rng, held)
    return Sample("count_up", (user(frames.fill(rng.choice(frames.COUNT_UP), rng, a=a, b=b)),), numbers(a, b))


def add_steps(a: int, b: int) -> str:
    """The schoolbook way, in words that are true."""
    ones, tens = a % 10 + b % 10, a // 10 + b // 10
    carry = ones // 10
    end = f"{a // 10} + {b // 10}" + (f" + {carry}" if carry else "") + f" = {tens + carry}"
    return f"{a % 10} + {b % 10} = {ones}" + (", carry 1" if carry else "") + f". {end}. So {a + b}."


def count_steps(text: str, c: str) -> str:
    seen, parts = 0, []
    for letter in text:
        seen += letter == c
        parts.append(f"{letter} {seen}" if letter == c else letter)
    return ", ".join(parts) + f". So {seen}."


def reverse_steps(text: str) -> str:
    return " ".join(text) + " -> " + " ".join(text[::-1]) + "."


def think_addition(rng: Random, held: bool = False) -> Sample:
    a, b = pair(rng, held)
    sample = Sample("think", (user(frames.fill(rng.choice(frames.ADD), rng, a=a, b=b)),), str(a + b))
    return sample.thought(add_steps(a, b))


def think_reverse(rng: Random, held: bool = False) -> Sample:
    text = held_word(rng, "reverse", held)
    sample = Sample("think", (user(frames.fill(rng.choice(frames.REVERSE), rng, w=text)),), text[::-1])
    return sample.thought(reverse_steps(text))


def think_count(rng: Random, held: bool = False) -> Sample:
    while True:
        text = counted_word(rng)
        c = letter_of(rng, text)
        if is_held("count", text, c) == held:
            break
    sample = Sample("think", (user(frames.fill(rng.choice(frames.COUNT), rng, c=c, w=text)),), str(text.count(c)))
    return sample.thought(count_steps(text, c))


def think(rng: Random, held: bool = False) -> Sample:
    makers: tuple[Callable[[Random, bool], Sample], ...] = (think_addition, think_reverse, think_count)
    return rng.choice(makers)(rng, held)


def known_word(rng: Random, held: bool = False) -> Sample:
    """The same games with a word of the facts, mostly one token: its letters have to be known, they can't be read.

    The gate (`held`) asks any of them to be turned round, those kept out of training too, though they can't be known."""
    text = rng.choice(FACT_WORDS)
    while not held and (is_held("reverse", text) or is_held("copy", text)):
        text = rng.choice(FACT_WORDS)
    roll = rng.random()
    if held or roll < 0.6:
        question = frames.fill(rng.choice(frames.REVERSE), rng, w=text)
        sample = Sample("known_word" if held else "reverse", (user(question),), text[::-1])
        return sample.thought(reverse_steps(text)) if roll < 0.1 and not held else sample
    c = letter_of(rng, text)
    while is_held("count", text, c):
        c = letter_of(rng, text)
    return counted(frames.fill(rng.choice(frames.COUNT), rng, c=c, w=text), text, c)
