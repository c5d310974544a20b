"""Two-turn chats, greetings, and the polite no."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import frames
from facts import fact
from sample import Sample, assistant, user
from tasks import addition, copy, count, count_steps, counted, is_held, letter_of, numbers, reverse
from words import CITIES, NAMES, proper, word

HELLO = "Hello! I am Pearl. How can I help?"
NO = "I am a tiny model and cannot do that. I add, copy, reverse, count and know Holdfast."
NO_SUM = "I only add numbers below 100."
GREETINGS = {
    HELLO: (
        "Hello!",
        "Hi!",
        "Hey",
        "Good morning!",
        "Good evening.",
        "Hello there",
        "Hi Pearl",
        "Hello, who is there?",
    ),
    "You are welcome!": ("Thanks!", "Thank you.", "Thank you very much!", "Great, thanks", "Many thanks."),
    "Goodbye!": ("Bye!", "Goodbye.", "See you later.", "Bye bye", "Good night!"),
    "I am well, thank you.": ("How are you?", "How are you doing?", "How is it going?", "Are you well?"),
    "pong": ("ping", "Ping!", "ping?"),
    "ok": ("Say ok.", "Reply with ok.", "Answer with ok."),
    "This is a test.": ("Say this is a test.", "Say: This is a test.", "Say this is a test!"),
}
THINGS = (
    "love",
    "the sea",
    "a dragon",
    "winter",
    "my boss",
    "Napoleon",
    "the moon",
    "quantum physics",
    "football",
    "cats",
    "the stock market",
    "Shakespeare",
    "Germany",
    "a holiday",
    "the weather",
    "music",
    "chess",
    "history",
    "France",
    "my essay",
    "a recipe",
    "politics",
    "Python",
    "the Romans",
    "a cake",
    "dinner",
    "happiness",
    "China",
    "stars",
)
ASKS = (
    "Write a poem about {x}.",
    "Write an essay about {x}.",
    "Translate {x} into French.",
    "Who won the game about {x}?",
    "What is the capital of {x}?",
    "Write a Python program about {x}.",
    "Tell me a joke about {x}.",
    "Draw {x}.",
    "Write a story about {x}.",
    "What is the news about {x}?",
    "Summarise a book on {x}.",
    "Sing a song about {x}.",
    "Give me a recipe for {x}.",
    "Who invented {x}?",
    "Explain the theory of {x}.",
    "Translate {x} to German.",
    "Write code for {x}.",
    "Who is the president of {x}?",
    "What should I think of {x}?",
    "Prove a theorem on {x}.",
    "When did {x} begin?",
    "Compose a letter about {x}.",
    "Recommend a film about {x}.",
    "Solve {x} for me.",
)
SUMS = (
    "What is {a} + {b}?",
    "What is {a} * {b}?",
    "What is {a} - {b}?",
    "Divide {a} by {b}.",
    "Multiply {a} by {b}.",
    "{a} + {b} =",
    "What is {a} times {b}?",
    "Compute {a} / {b}.",
    "Add {a} and {b}.",
    "Subtract {b} from {a}.",
)
PLUS = (
    "And add {n} to that.",
    "And add {n} to that?",
    "Now add {n}.",
    "Add {n} more.",
    "Plus {n}?",
    "And plus {n}?",
    "Add {n} to it.",
    "What if you add {n}?",
    "Now add {n} to the result.",
)
TURN = (
    "Reverse it.",
    "Now reverse it.",
    "And backwards?",
    "Now spell it backwards.",
    "Reverse that word.",
    "Turn it around.",
)
AGAIN = ("Say it again.", "Repeat that.", "Again, please.", "Once more.", "Repeat your answer.")
IAM = ("My name is {x}.", "I am {x}.", "I'm {x}.", "Call me {x}.", "Hello, my name is {x}.", "Hi, I am {x}!")
WHOAMI = (
    "What is my name?",
    "Who am I?",
    "Do you know my name?",
    "Say my name.",
    "What's my name?",
    "Tell me my name.",
)
LIKE = ("I live in {x}.", "My city is {x}.", "I am from {x}.", "My home is {x}.")
WHERE = ("Where do I live?", "What is my city?", "Which city am I from?", "Where am I from?")
OTHER = ("And how many {d}?", "And {d}?", "And the letter {d}?", "How many {d}?")
ONWARD = ("Go on to {b}.", "Now go on to {b}.", "Continue to {b}.", "And up to {b}?")


def greeting(rng: Random, held: bool = False) -> Sample:
    answer = rng.choice(tuple(GREETINGS))
    return Sample("greeting", (user(frames.fill(rng.choice(GREETINGS[answer]), rng)),), answer)


def refusal(rng: Random, held: bool = False) -> Sample:
    if rng.random() < 0.3:
        a, b = rng.randint(100, 9999), rng.randint(2, 999)
        text, answer = rng.choice(SUMS), NO_SUM
        if "+" not in text and "Add" not in text:
            a, answer = rng.randint(2, 999), NO_SUM
        return Sample("refusal", (user(frames.fill(text, rng, a=a, b=b)),), answer)
    thing = rng.choice(THINGS) if rng.random() < 0.8 else word(rng)
    return Sample("refusal", (user(frames.fill(rng.choice(ASKS), rng, x=thing)),), NO)


def _then(first: Sample, question: str, answer: str) -> Sample:
    return Sample("two_turn", (*first.messages, assistant(first.answer), user(question)), answer)


def _plus(rng: Random, held: bool) -> Sample:
    first = addition(rng, held)
    while int(first.answer) > 150:
        first = addition(rng, held)
    n = rng.randint(1, 20)
    return _then(first, frames.fill(rng.choice(PLUS), rng, n=n), str(int(first.answer) + n))


def _turned(rng: Random, held: bool) -> Sample:
    first = rng.choice((copy, reverse))(rng, held)
    return _then(first, frames.fill(rng.choice(TURN), rng), first.answer[::-1])


def _again(rng: Random, held: bool) -> Sample:
    first = rng.choice((copy, addition, count))(rng, held)
    return _then(first, frames.fill(rng.choice(AGAIN), rng), first.answer)


def _named(rng: Random, held: bool) -> Sample:
    if rng.random() < 0.3:
        city = proper(rng, CITIES)
        first = Sample("two_turn", (user(frames.fill(rng.choice(LIKE), rng, x=city)),), f"You live in {city}.")
        return _then(first, frames.fill(rng.choice(WHERE), rng), f"You live in {city}.")
    name = proper(rng, NAMES)
    first = Sample("two_turn", (user(frames.fill(rng.choice(IAM), rng, x=name)),), f"Hello, {name}!")
    return _then(first, frames.fill(rng.choice(WHOAMI), rng), f"Your name is {name}.")


def _other_letter(rng: Random, held: bool) -> Sample:
    while True:
        text = word(rng)
        c, d = letter_of(rng, text), letter_of(rng, text)
        if is_held("count", text, c) == held and is_held("count", text, d) == held:
            break
    first = counted(frames.fill(rng.choice(frames.COUNT), rng, c=c, w=text), text, c)
    return _then(first, frames.fill(rng.choice(OTHER), rng, d=d), count_steps(text, d))


def _onward(rng: Random, held: bool) -> Sample:
    while True:
        a = rng.randint(0, 60)
        b = a + rng.randint(2, 9)
        c = b + rng.randint(2, 12)
        if is_held("onward", a, b, c) == held:
            break
    first = Sample("two_turn", (user(frames.fill(rng.choice(frames.COUNT_UP), rng, a=a, b=b)),), numbers(a, b))
    return _then(first, frames.fill(rng.choice(ONWARD), rng, b=c), numbers(b + 1, c))


def _unrelated(rng: Random, held: bool) -> Sample:
    first = rng.choice((fact, addition, copy, greeting, refusal, reverse))(rng, False)
    second = rng.choice((fact, addition, copy, reverse, count, greeting))(rng, held)
    return Sample("two_turn", (*first.messages, assistant(first.answer), *second.messages), second.answer)


def two_turn(rng: Random, held: bool = False) -> Sample:
    makers: tuple[Callable[[Random, bool], Sample], ...] = (
        _plus,
        _plus,
        _turned,
        _again,
        _named,
        _named,
        _other_letter,
        _onward,
        _unrelated,
        _unrelated,
    )
    return rng.choice(makers)(rng, held)


def introduction(rng: Random, held: bool = False) -> Sample:
    """The first half of a two-turn chat, so that the reply to a name is learned too."""
    if rng.random() < 0.3:
        city = proper(rng, CITIES)
        return Sample("greeting", (user(frames.fill(rng.choice(LIKE), rng, x=city)),), f"You live in {city}.")
    name = proper(rng, NAMES)
    return Sample("greeting", (user(frames.fill(rng.choice(IAM), rng, x=name)),), f"Hello, {name}!")
