"""What a site of scripted replicas must answer, known before anybody asks: a pure function of question and seed.

So every answer of a drill can be checked exactly, each with a question of its own, and no undisturbed run is needed first.
"""

from pathlib import Path

from msgspec import structs

from holdfast.dialect.open import open_dialect
from holdfast.domain.dialect import Message
from holdfast.drill.client import Question
from holdfast.drill.questions import question
from holdfast.policy.reckoning import Answer
from holdfast.sim.scripted import Script, plain_vocabulary, scripted_answer


class Truth:
    """Questions to the model that lies in a folder, and their answers."""

    def __init__(self, folder: Path, model: str) -> None:
        vocabulary, vocab_size = plain_vocabulary((folder / "tokenizer.json").read_bytes())
        self._dialect = open_dialect(folder)
        self._script = structs.replace(Script(), vocabulary=vocabulary, vocab_size=vocab_size)
        self._model = model
        self.answers: dict[int, Answer] = {}

    def ask(self, case: int, prompt: str, tokens: int) -> Question:
        """A question whose answer has so many tokens; from now on `answers[case]` is what must come."""
        made = question(
            case, self._model, prompt, max_tokens=tokens, ignore_eos=True, seed=case, thinking={"type": "disabled"}
        )
        prompt_ids = self._dialect.render([Message("user", prompt)], [], False, False)
        parser = self._dialect.parser(prompt_ids)
        said, rest = parser.feed(scripted_answer(prompt_ids, case, tokens, self._script)), parser.end()
        self.answers[case] = Answer(
            case=case,
            opened_at=0.0,
            reasoning=said.reasoning + rest.reasoning,
            content=said.content + rest.content,
            completion_tokens=tokens,
            finish="length",
            end="ended",
        )
        return made

    def prompt_tokens(self, prompt: str) -> int:
        """How long a prompt is."""
        return len(self._dialect.render([Message("user", prompt)], [], False, False))
