"""How an OpenAI-compatible server behaves where the API leaves it open, found by asking it."""

from typing import Any

import msgspec
from msgspec import Struct, structs

from holdfast.domain.engine import Abilities, Ability, EngineKind, Finding
from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused
from holdfast.engine.http import Answer, HttpDoor, fault_of
from holdfast.engine.serving import Serving
from holdfast.engine.spelling import Spelling

FIELDS = {"top_k": 20, "min_p": 0.01, "ignore_eos": True, "skip_special_tokens": False}  # no part of OpenAI's API
TEXT = "one two three"
_TRIED = 8
_TRIAL_S = 120.0
_REFUSED = (400, 422)


class Manners(Struct, frozen=True, kw_only=True):
    """`bos` holds the beginning-of-sentence id if the server puts it before a text by itself. `fields` are those of FIELDS that
    it takes."""

    takes_ids: bool = False
    bos: list[int] = []
    fields: frozenset[str] = frozenset()


class Learner:
    """Asks once. `serving` and `manners` hold what is known afterwards."""

    def __init__(self, door: HttpDoor, serving: Serving, spelling: Spelling) -> None:
        self._door, self.serving, self._spelling = door, serving, spelling
        self.manners = Manners()

    async def learn(self) -> Abilities:
        """Raises EngineLost: no answer, another model, or no /v1/completions."""
        model = await self._model()
        told = model.get("max_model_len") or (model.get("meta") or {}).get("n_ctx")
        bounds = [int(bound) for bound in (self.serving.context_tokens_max, told) if bound]
        self.serving = structs.replace(
            self.serving, served_as=str(model.get("id") or ""), context_tokens_max=min(bounds, default=0)
        )
        plain = await self._try(TEXT)
        if isinstance(plain, str):
            raise EngineLost(f"{self._door.url} completes no text: {plain}")
        bos = self._bos(plain)
        fields = [name for name, value in FIELDS.items() if not isinstance(await self._try(TEXT, {name: value}), str)]
        ids_in = await self._ids_in(bos)
        self.manners = Manners(takes_ids=ids_in.has, bos=bos, fields=frozenset(fields))
        return Abilities(
            kind=EngineKind.OPENAI,
            served_as=self.serving.served_as,
            findings=(
                ids_in,
                Finding(
                    Ability.IDS_OUT,
                    False,
                    "it tells text, spelt here with the model folder's tokens: continued by text",
                ),
                await self._seed(),
                Finding(Ability.GRAMMAR, False, "the API has no grammars"),
                Finding(Ability.LED, False, "the API has no grammars"),
                Finding(Ability.PRIORITY, False, "the API has no priorities"),
                Finding(Ability.LOGPROBS, False, "those of its tokens can't be given to ours"),
                Finding(Ability.COUNTERS, False, "the API has no counters: only its door can be asked"),
            ),
            slots=self.serving.slots,
            context_tokens_max=self.serving.context_tokens_max,
        )

    async def _model(self) -> dict[str, Any]:
        answer = await self._ask("GET", "/v1/models", None, self.serving.answer_s)
        listed = self._read(answer).get("data") or []
        wanted = self.serving.served_as
        for model in listed:
            if not wanted or wanted == model.get("id"):
                found: dict[str, Any] = model
                return found
        names = ", ".join(str(model.get("id")) for model in listed) or "none"
        raise EngineLost(f"{self._door.url} serves no model {wanted!r}; it serves {names}")

    def _bos(self, plain: dict[str, Any]) -> list[int]:
        """The first marker of the folder, where the server counts one token more than the text has."""
        extra = _counted(plain) - len(self._spelling.encode(TEXT))
        return [self._spelling.bos] if extra == 1 and self._spelling.bos is not None else []

    async def _ids_in(self, bos: list[int]) -> Finding:
        """Whether ids and text are one and the same prompt to it."""
        ids = [*bos, *self._spelling.encode(TEXT)]
        by_ids, by_text = await self._try(ids), await self._try(TEXT)
        if isinstance(by_ids, str):
            return Finding(Ability.IDS_IN, False, f"a prompt of ids was refused: {by_ids}")
        if _counted(by_ids) != len(ids):
            return Finding(Ability.IDS_IN, False, f"it counts {_counted(by_ids)} tokens in a prompt of {len(ids)} ids")
        same = isinstance(by_text, dict) and _text(by_ids) == _text(by_text)
        return Finding(
            Ability.IDS_IN,
            same,
            "ids and text were the same prompt to it" if same else "ids and text of one prompt had different answers",
        )

    async def _seed(self) -> Finding:
        answers = [await self._try(TEXT, {"temperature": 1.5, "seed": seed}) for seed in (1, 1, 2)]
        texts = [None if isinstance(one, str) else _text(one) for one in answers]
        if texts[0] is None or texts[0] != texts[1]:
            return Finding(Ability.SEED, False, "one seed gave two different answers")
        if texts[0] == texts[2]:
            return Finding(Ability.SEED, False, "two seeds gave one and the same answer")
        return Finding(Ability.SEED, True, "one seed gave one answer twice, another another")

    async def _try(self, prompt: str | list[int], more: dict[str, Any] | None = None) -> dict[str, Any] | str:
        """A short completion; a sentence where it is refused."""
        body = {
            "model": self.serving.served_as,
            "prompt": prompt,
            "max_tokens": _TRIED,
            "temperature": 0.0,
            **(more or {}),
        }
        answer = await self._ask("POST", "/v1/completions", body, _TRIAL_S)
        if answer.status in _REFUSED:
            return fault_of(self._door.url, answer.status, answer.body).why
        return self._read(answer)

    async def _ask(self, method: str, path: str, body: dict[str, Any] | None, timeout_s: float) -> Answer:
        coded = None if body is None else msgspec.json.encode(body)
        try:
            return await self._door.ask(method, path, coded, timeout_s)
        except EngineRefused as refused:
            raise EngineLost(refused.why) from refused

    def _read(self, answer: Answer) -> dict[str, Any]:
        if answer.status != 200:
            fault = fault_of(self._door.url, answer.status, answer.body)
            raise EngineLost(fault.why) from (fault if isinstance(fault, BadRequest) else None)
        try:
            return msgspec.json.decode(answer.body, type=dict[str, Any])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise EngineLost(f"{self._door.url} says what is no part of OpenAI's API: {error}") from error


def _counted(told: dict[str, Any]) -> int:
    return int((told.get("usage") or {}).get("prompt_tokens") or 0)


def _text(told: dict[str, Any]) -> str | None:
    choices = told.get("choices") or [{}]
    text = choices[0].get("text")
    return text if isinstance(text, str) else None
