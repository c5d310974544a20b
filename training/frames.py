"""Ways to say one thing: sentence frames, and the small disorder of how people type."""

from __future__ import annotations

import re
from random import Random

_HOLE = re.compile(r"(\{[a-z_]+\})")
_LEADS = ("Please ", "Hey, ", "Hi, ", "OK, ", "Now ", "Can you help? ", "Question: ", "So, ", "Well, ", "Pearl, ")
_TAILS = (" Please.", " Thanks.", " Thank you!", " please", " now", "")


def loosen(frame: str, rng: Random) -> str:
    """The frame as somebody might type it: case, punctuation and a polite word may change; holes stay."""
    roll = rng.random()
    if roll < 0.5:
        return frame
    parts = _HOLE.split(frame)
    if rng.random() < 0.5:
        parts = [part if part.startswith("{") else part.lower() for part in parts]
    elif rng.random() < 0.08:
        parts = [part if part.startswith("{") else part.upper() for part in parts]
    text = "".join(parts)
    if rng.random() < 0.4 and text[-1:] in ".?!":
        text = text[:-1] + rng.choice(("", "", "!", "?", ".", " ?"))
    if rng.random() < 0.25:
        lead = rng.choice(_LEADS)
        text = (lead if rng.random() < 0.7 else lead.lower()) + text
    elif rng.random() < 0.2:
        text = text + rng.choice(_TAILS)
    return text


def fill(frame: str, rng: Random, **holes: object) -> str:
    """A loosened frame with its holes filled."""
    return loosen(frame, rng).format(**{key: str(value) for key, value in holes.items()})


ADD = (
    "What is {a} + {b}?",
    "{a} + {b} =",
    "{a}+{b}",
    "Add {a} and {b}.",
    "What is {a} plus {b}?",
    "Compute {a} + {b}.",
    "How much is {a} + {b}?",
    "How much is {a} and {b} together?",
    "Give the sum of {a} and {b}.",
    "{a} plus {b}?",
    "Calculate {a} + {b}.",
    "What do {a} and {b} add up to?",
    "Sum {a} and {b}.",
    "{a} + {b} = ?",
    "What's {a}+{b}?",
)
COPY = (
    "Copy the word {w}.",
    "Repeat: {w}",
    "Say {w}.",
    "Echo {w}",
    "Repeat the word {w}.",
    'Repeat "{w}".',
    "Copy: {w}",
    "Write the word {w}.",
    "Just say {w}.",
    "Type {w} back to me.",
    "Print {w}",
    "Repeat after me: {w}",
    'Copy the word "{w}" exactly.',
    "Return the word {w}.",
)
REVERSE = (
    "Reverse the word {w}.",
    "Reverse: {w}",
    "Spell {w} backwards.",
    "Write {w} backwards.",
    "Turn {w} around.",
    'Reverse "{w}".',
    "What is {w} backwards?",
    "What is {w} reversed?",
    "Give me {w} in reverse.",
    "reverse {w}",
    "Say {w} backwards.",
    "Flip the letters of {w}.",
    "Reverse the letters of {w}.",
)
COUNT = (
    "How many {c} in {w}?",
    "Count the letter {c} in {w}.",
    "How many times does {c} occur in {w}?",
    "How many {c}'s are in {w}?",
    'How many "{c}" are in "{w}"?',
    "How often is {c} in the word {w}?",
    "Count {c} in {w}",
    "How many letters {c} are there in {w}?",
    "How many {c}s does {w} have?",
    "How many times does the letter {c} appear in the word {w}?",
    "Number of {c} in {w}?",
)
COUNT_UP = (
    "Count from {a} to {b}.",
    "Count up from {a} to {b}.",
    "Please count from {a} to {b}.",
    "Count {a} to {b}.",
    "Count from {a} up to {b}.",
    "List the numbers from {a} to {b}.",
    "Write the numbers {a} to {b}.",
    "Say the numbers from {a} to {b}.",
    "Give me all numbers from {a} to {b}.",
    "Can you count from {a} to {b}?",
)
# Frames of facts, by kind. Two of each are kept out of training for each fact (see facts.py).
TERM = (
    "What is {x}?",
    "What's {x}?",
    "Explain {x}.",
    "Define {x}.",
    "What does {x} mean?",
    "Tell me about {x}.",
    "What do you know about {x}?",
    "Describe {x}.",
    "Can you explain {x}?",
    "What is meant by {x}?",
    "Give me the meaning of {x}.",
    "{x}?",
    "{x}",
    "Tell me what {x} is.",
    "I want to know about {x}.",
    "Could you tell me what {x} is?",
)
NOUN = (
    "What is {x}?",
    "What's {x}?",
    "Tell me {x}.",
    "Give me {x}.",
    "Do you know {x}?",
    "Name {x}.",
    "{x}?",
    "{x}",
    "Can you tell me {x}?",
    "I need {x}.",
    "Please state {x}.",
    "I want to know {x}.",
    "What would be {x}?",
    "Say what {x} is.",
    "Could you give me {x}?",
    "Do you remember {x}?",
)
INDIRECT = (
    "Tell me {x}.",
    "Do you know {x}?",
    "Can you tell me {x}?",
    "I want to know {x}.",
    "Explain {x}.",
    "{x}?",
    "{x}",
    "Please say {x}.",
    "I wonder {x}.",
    "Could you explain {x}?",
    "Say {x}.",
    "Let me know {x}.",
    "Answer this: {x}?",
    "Could you say {x}?",
)
DIRECT = (
    "{x}?",
    "{x}",
    "{x}? Tell me.",
    "Tell me: {x}?",
    "Quick question: {x}?",
    "I have a question. {x}?",
    "{x}??",
    "One thing: {x}?",
    "{x}, please?",
    "Answer this: {x}?",
)
SYSTEMS = (
    "You are a helpful assistant.",
    "You are Pearl.",
    "Be brief.",
    "Answer shortly.",
    "You are a careful assistant.",
    "Be polite.",
    "You are a helpful, honest assistant.",
    "Help the user.",
    "Answer in English.",
    "Be exact.",
    "You answer questions about Holdfast.",
    "Follow the instructions.",
    "You are an assistant in a test.",
    "Always answer truthfully.",
    "Today is Monday.",
    "The user is an engineer.",
    "Keep it short and correct.",
)
