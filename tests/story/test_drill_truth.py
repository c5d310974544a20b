"""What a drill expects of a scripted site is what that site says: through the gateway's own reading, token for token."""

from pathlib import Path

import msgspec

import holdfast
from holdfast.dialect.open import open_dialect
from holdfast.domain.dialect import Message
from holdfast.drill.truth import Truth
from holdfast.sim.scripted import Script, plain_vocabulary, scripted_answer

MODEL = Path(holdfast.__file__).parent / "shipped" / "pearl"


def test_the_answer_is_the_scripts_read_as_text() -> None:
    truth = Truth(MODEL, "pearl")
    asked = truth.ask(7, "Count from 7.", 40)
    vocabulary, size = plain_vocabulary((MODEL / "tokenizer.json").read_bytes())
    dialect = open_dialect(MODEL)
    prompt = dialect.render([Message("user", "Count from 7.")], [], False, False)
    ids = scripted_answer(prompt, 7, 40, Script(vocabulary=vocabulary, vocab_size=size))
    wanted = truth.answers[7]
    assert wanted.content == b"".join(dialect.bytes_of(token) for token in ids).decode()
    assert (wanted.reasoning, wanted.completion_tokens, wanted.finish) == ("", 40, "length")
    body = msgspec.json.decode(asked.body)
    assert (body["seed"], body["max_tokens"], body["ignore_eos"], body["thinking"]) == (
        7,
        40,
        True,
        {"type": "disabled"},
    )


def test_every_case_has_an_answer_of_its_own() -> None:
    truth = Truth(MODEL, "pearl")
    for case in range(20):
        truth.ask(case, "The same.", 16)
    assert len({one.content for one in truth.answers.values()}) == 20


def test_a_prompts_length_is_the_dialects() -> None:
    truth = Truth(MODEL, "pearl")
    assert truth.prompt_tokens("one two three ") < truth.prompt_tokens("one two three " * 10)
