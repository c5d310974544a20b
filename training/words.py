"""Words to copy, turn round and count letters in: common ones, syllables, and plain random letters."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

FACTS_FILE = Path(__file__).parent / "data" / "facts.txt"


def _words(text: str) -> list[str]:
    return text.split()


COMMON = _words(
    "strawberry banana apple orange cherry lemon melon grape peach plum pear kiwi mango olive onion carrot potato "
    "tomato pepper garlic bread butter cheese coffee sugar honey water river ocean island mountain forest garden "
    "flower winter summer autumn spring morning evening window mirror candle ladder bridge castle tower harbour "
    "anchor rudder compass letter pencil paper ribbon button pocket jacket leather silver copper golden purple "
    "yellow orange crimson kitten puppy rabbit falcon eagle sparrow pigeon parrot salmon turtle lizard spider "
    "beetle butterfly elephant giraffe monkey tiger lion zebra horse donkey camel llama goose turkey planet comet "
    "rocket engine piston hammer screw wrench bottle kettle basket blanket pillow carpet curtain violin guitar "
    "trumpet piano drummer singer writer farmer doctor teacher student soldier sailor pirate wizard dragon giant "
    "robot server gateway replica token stream memory kernel packet socket thread mutex holdfast pearl deepseek "
    "mississippi committee balloon letters pepperoni assess bookkeeper success address parallel tomorrow hello "
    "world cat dog sun moon star tree fish bird book door road ship rain snow wind fire stone sand glass kelp"
)
NAMES = _words(
    "Ada Bob Carol Dan Eve Frank Grace Heidi Ivan Judy Karl Lena Mia Noah Olga Paul Quinn Rosa Sam Tina Uma Vera "
    "Will Xena Yan Zoe Alan Linus Edsger Barbara Donald Ken Dennis Margaret Radia Tim Anna Ben Clara Max Omar Lucy"
)
CITIES = _words(
    "Paris London Berlin Madrid Rome Vienna Prague Oslo Lima Cairo Tokyo Delhi Seoul Sydney Boston Chicago Dublin "
    "Athens Lisbon Warsaw Geneva Zurich Milan Naples Kyoto Osaka Hanoi Accra Lagos Nairobi Toronto Denver Austin "
    "Hangzhou Beijing Shanghai Munich Hamburg Porto Bergen"
)
FACT_WORDS = sorted(set(re.findall(r"\b[a-z]{2,9}\b", FACTS_FILE.read_text(encoding="utf-8"))))
LETTERS = "abcdefghijklmnopqrstuvwxyz"
ONSETS = _words("b c d f g h j k l m n p r s t v w z br cl cr dr fl gr pl pr sh sk sl sp st th tr")
NUCLEI = _words("a e i o u ai ea ee oo ou")
CODAS = ["", "", "", "n", "r", "l", "s", "t", "m", "ck", "nd", "st", "ng"]


def syllables(rng: Random, count: int) -> str:
    return "".join(rng.choice(ONSETS) + rng.choice(NUCLEI) + rng.choice(CODAS) for _ in range(count))


def word(rng: Random, longest: int = 9) -> str:
    """Any lower-case word of 2 to `longest` letters."""
    roll = rng.random()
    if roll < 0.25:
        text = rng.choice(COMMON)
    elif roll < 0.6:
        text = syllables(rng, rng.choice((1, 2, 2, 3)))
    else:
        text = "".join(rng.choice(LETTERS) for _ in range(rng.randint(2, 8)))
    return text[:longest]


def proper(rng: Random, known: list[str]) -> str:
    """A capitalised word: mostly a known one, else an invented one."""
    if rng.random() < 0.6:
        return rng.choice(known)
    return syllables(rng, rng.choice((1, 2, 2)))[:9].capitalize()
