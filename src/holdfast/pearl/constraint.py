"""What an answer's grammar lets it say next: a mask over the vocabulary, kept in step with every token that was said.

A grammar is compiled once (llguidance does it, in a thread: it may take longer than a step) and copied for each answer. One that
comes from elsewhere is led through what was delivered first: after that it stands where the other replica's stood, so the whole
matches the grammar once, wherever it was cut. Masks are a function of grammar and tokens alone.

Copies share what their compiled grammar has worked out, and so its memory limit too: when one of several fails, it is led through
its answer again on a fresh compilation, and only what fails there as well is the request's own fault.
"""

import importlib
import json
import math
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from holdfast.domain.fault import BadRequest

GRAMMAR_BYTES_MAX = 64 * 1024
COMPILED_MAX = 64  # grammars kept, and their text together:
COMPILED_BYTES_MAX = 512 * 1024
FIELD = "grammar"
DEAD_END = "no token of the vocabulary can go on with it"


@dataclass(slots=True)
class Compiled:
    """A grammar at its beginning, and how many answers have had a copy of it. `fault`: why it can't be kept."""

    matcher: Any
    fault: str = ""
    copies: int = 0

    def copy(self) -> Any:
        self.copies += 1
        return self.matcher.deep_copy()


class Constraint:
    """One answer under its grammar. `over`: nothing may follow. `fault`: the sentence, once it can't be told what may."""

    __slots__ = ("_compiled", "_grammar", "_matcher", "_said", "_source", "_stops", "fault", "over")

    def __init__(self, source: "Grammars", grammar: str, answer: list[int], stops: frozenset[int]) -> None:
        """Raises BadRequest: no grammar, or `answer` does not match it."""
        self._source = source
        self._grammar = grammar
        self._stops = sorted(stops)
        self._said = list(answer)
        self._compiled = source.compiled(grammar).result()
        if self._compiled.fault:
            raise BadRequest(self._compiled.fault, FIELD)
        self._matcher = self._compiled.copy()
        self.fault = ""
        led = self._matcher.try_consume_tokens(answer)
        if led < len(answer) and not self._anew():
            why = self.fault or "its grammar does not allow it there"
            raise BadRequest(f"delivered_ids[{led}] is token {answer[led]}: {why}", "delivered_ids")
        self.over = bool(self._matcher.is_stopped())

    def apply(self, row: Tensor) -> None:
        """Minus infinity, in place, for every token of logits [vocab] that may not come next. See `fault`.

        Logits that are not sound are left as they are, so that the mask can't hide it.
        """
        if not -math.inf < float(row.max()) < math.inf:
            return
        bits = self._bits()
        if self._matcher.is_error() and not self.fault and self._anew():
            bits = self._bits()
        may_end = not self.fault and bool(self._matcher.is_accepting())
        bits[self._source.end_ids] = 0
        bits[self._stops] = may_end
        if self.fault:
            bits[:] = 0
        elif not bits.any():
            self.over = may_end
            self.fault = "" if may_end else DEAD_END
        row.masked_fill_(torch.from_numpy(bits == 0).to(row.device), -math.inf)

    def said(self, token: int) -> None:
        """Go on by a token that `apply` has allowed."""
        self._said.append(token)
        if not self._matcher.consume_token(token):
            self._anew()
        self.over = not self.fault and bool(self._matcher.is_stopped())

    def _bits(self) -> Any:
        bits = np.unpackbits(np.frombuffer(self._matcher.compute_bitmask(), np.uint8), bitorder="little")
        return bits[: self._source.vocab_size]

    def _anew(self) -> bool:
        """Lead a fresh compilation through what was said. False, and `fault` set, where that fails or would fail too."""
        why = self._matcher.get_error()
        self._source.forget(self._grammar)
        if self._compiled.copies > 1:
            self._compiled = self._source.compiled(self._grammar).result()
            self._matcher = self._compiled.copy()
            if self._matcher.try_consume_tokens(self._said) == len(self._said):
                self._matcher.compute_bitmask()
                if not self._matcher.is_error():
                    return True
            self._source.forget(self._grammar)
        fault = first_line(self._matcher.get_error() or why)
        self.fault = DEAD_END if fault == "NoExtensionBias" else fault
        return False


class Grammars:
    """Compiles grammars for one model's vocabulary, and keeps the last ones. `missing`: why it can't, where it can't."""

    def __init__(self, vocab_size: int, missing: str) -> None:
        self.vocab_size = vocab_size
        self.missing = missing
        self.build = ""  # of what makes the masks: equal builds make equal ones
        self.end_ids: list[int] = []
        self._tokenizer: Any = None
        self._limits: Any = None
        self._library: ModuleType | None = None
        self._kept: OrderedDict[str, Future[Compiled]] = OrderedDict()
        self._thread = ThreadPoolExecutor(1, "grammars")

    @classmethod
    def open(cls, model_dir: Path, vocab_size: int, end_ids: tuple[int, ...]) -> "Grammars":
        """Read the folder's tokenizer. If it is missing or can't be used, only grammars are refused."""
        try:
            library = importlib.import_module("llguidance")
            spec: dict[str, Any] = json.loads((model_dir / "tokenizer.json").read_text("utf-8"))
        except ImportError:
            return cls(vocab_size, "llguidance is not installed on it: pip install 'holdfast[embedded]'")
        except (OSError, ValueError) as error:
            return cls(vocab_size, f"its tokenizer.json can't be read ({error})")
        marks = spec.get("added_tokens") or []
        for mark in marks:
            mark["special"] = True  # none of them is ever text
        ids = [mark["id"] for mark in marks]
        made = cls(vocab_size, "" if ids else "its tokenizer.json has no marks, so no end of an answer either")
        if not ids:
            return made
        made.end_ids = [token for token in end_ids if token in ids] or ids[:1]
        try:
            made._tokenizer = library.LLTokenizer(json.dumps(spec), n_vocab=vocab_size, eos_token=made.end_ids)
        except ValueError as error:
            made.missing = f"llguidance can't use its tokenizer.json ({first_line(str(error))})"
            return made
        if any(made._tokenizer.decode_str([mark["id"]]) != mark["content"] for mark in marks):
            made.missing = "llguidance reads other ids for the marks of its tokenizer.json"
            return made
        made._library = library
        made._limits = library.LLParserLimits(
            initial_lexer_fuel=500_000,
            step_lexer_fuel=100_000,
            max_lexer_states=50_000,
            max_grammar_size=200_000,
            verbose_errors=False,
        )
        made.build = f" under llguidance {library.__version__}"
        return made

    def begin(self, grammar: str, answer: list[int], stops: frozenset[int]) -> Constraint:
        """Whatever may follow `answer`. `stops` are allowed exactly where the grammar may end. Waits until it is compiled.

        Raises:
            BadRequest: this replica keeps no grammars, this is none that it can keep, or `answer` does not match it.
        """
        return Constraint(self, grammar, answer, stops)

    def compiled(self, grammar: str) -> "Future[Compiled]":
        """The grammar, once it is compiled. Raises BadRequest where there is no need to try."""
        if self.missing:
            raise BadRequest(f"this replica can't keep an answer to a grammar: {self.missing}", FIELD)
        size = len(grammar.encode())
        if size > GRAMMAR_BYTES_MAX:
            raise BadRequest(f"grammar is {size} bytes; the limit is {GRAMMAR_BYTES_MAX}", FIELD)
        kept = self._kept
        if grammar in kept:
            kept.move_to_end(grammar)
            return kept[grammar]
        made = kept[grammar] = self._thread.submit(self._compile, grammar)
        while len(kept) > COMPILED_MAX or sum(map(len, kept)) > COMPILED_BYTES_MAX:
            kept.popitem(last=False)
        return made

    def forget(self, grammar: str) -> None:
        """Compile it anew next time."""
        self._kept.pop(grammar, None)

    def _compile(self, grammar: str) -> Compiled:
        if self._library is None:
            return Compiled(None, self.missing)
        matcher = self._library.LLMatcher(self._tokenizer, grammar, log_level=0, limits=self._limits)
        if matcher.is_error():
            return Compiled(matcher, f"grammar can't be compiled: {first_line(matcher.get_error())}")
        return Compiled(matcher)


def first_line(error: str) -> str:
    """llguidance's sentence without the excerpt and the trace behind it: those may quote the request."""
    return error.strip().partition("\n")[0].removeprefix("Parser Error: ")
