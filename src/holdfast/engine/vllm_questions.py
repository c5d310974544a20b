"""What one vLLM build can do, found by asking it once: each finding with the sentence of what was seen.

A version number says little: builds are patched, flags turn things off, and documentation is late. The questions cost a few
dozen tokens.
"""

from typing import Any

import msgspec
from msgspec import Struct, structs

from holdfast.domain.engine import Abilities, Ability, EngineKind, Finding
from holdfast.domain.fault import EngineLost, EngineRefused
from holdfast.domain.request import Sampling
from holdfast.engine import exposition
from holdfast.engine.http import Answer, HttpDoor, fault_of
from holdfast.engine.serving import Serving
from holdfast.engine.vllm_wire import Choice, Event, sampled

ASK_S = 120.0  # the first answer may have kernels compiled for it
PROMPT = (4, 5, 6, 7)  # any ids do, in any vocabulary
FEW, SOME = 3, 12  # tokens
GRAMMAR = "start: <[5]> <[4]> <[6]>"  # Lark over ids, as ours are
GRAMMAR_IDS = [5, 4, 6]


class _Version(Struct):
    version: str = ""


class _Model(Struct):
    id: str
    max_model_len: int | None = None


class _Models(Struct):
    data: list[_Model] = []


class Questions:
    """Asks one engine. `answers` gives what is known of the model then, and the abilities."""

    def __init__(self, door: HttpDoor, serving: Serving) -> None:
        self._door, self._serving = door, serving

    async def answers(self) -> tuple[Serving, Abilities]:
        """Raises EngineLost: it does not answer, serves no such model, or tells no ids, without which nothing is continued."""
        try:
            version = await self._version()
            model = await self._model()
            self._serving = self._named(model)
            before = await self._steps()
            findings = [*await self._ids(), await self._seed(), *await self._grammar(), self._priority()]
            findings.append(await self._counters(before))
        except EngineRefused as refused:
            raise EngineLost(refused.why) from refused
        serving = self._serving
        abilities = Abilities(
            kind=EngineKind.VLLM,
            version=version,
            served_as=serving.served_as,
            findings=tuple(findings),
            slots=serving.slots,
            context_tokens_max=serving.context_tokens_max,
        )
        return serving, abilities

    async def _version(self) -> str:
        answer = await self._door.ask("GET", "/version", None, self._serving.answer_s)
        try:
            return msgspec.json.decode(answer.body, type=_Version).version if answer.status == 200 else ""
        except msgspec.DecodeError:
            return ""

    async def _model(self) -> _Model:
        answer = await self._door.ask("GET", "/v1/models", None, self._serving.answer_s)
        if answer.status != 200:
            raise EngineLost(fault_of(self._door.url, answer.status, answer.body).why)
        try:
            models = msgspec.json.decode(answer.body, type=_Models).data
        except msgspec.DecodeError as error:
            raise EngineLost(f"{self._door.url}/v1/models answers with garbage: {error}") from error
        wanted = self._serving.served_as
        found = next((one for one in models if one.id == wanted or not wanted), None)
        if found is None:
            served = ", ".join(one.id for one in models) or "nothing"
            raise EngineLost(f"{self._door.url} serves no {wanted or 'model'}, but {served}")
        return found

    def _named(self, model: _Model) -> Serving:
        bounds = [bound for bound in (self._serving.context_tokens_max, model.max_model_len) if bound]
        return structs.replace(self._serving, served_as=model.id, context_tokens_max=min(bounds, default=0))

    async def _ids(self) -> list[Finding]:
        answer = await self._ask(Sampling(temperature=0.0, logprobs=0), FEW)
        if answer.status != 200:
            raise EngineLost(f"asked for {FEW} tokens: {fault_of(self._door.url, answer.status, answer.body).why}")
        choice = _choice(answer)
        ids = choice.token_ids if choice is not None else None
        if choice is None or not ids:
            raise EngineLost(
                f"{self._door.url} tells text without its ids, so no answer of it could be continued: take engine = 'openai'"
            )
        back = choice.prompt_token_ids == list(PROMPT)
        told = len(choice.logprobs.token_logprobs) if choice.logprobs is not None else 0
        return [
            Finding(
                Ability.IDS_IN, back, f"a prompt of {len(PROMPT)} ids came back {'the same' if back else 'changed'}"
            ),
            Finding(Ability.IDS_OUT, True, f"{len(ids)} ids were told for {FEW} tokens asked for"),
            Finding(Ability.LOGPROBS, told == len(ids), f"{told} logprobs were told for {len(ids)} tokens"),
        ]

    async def _seed(self) -> Finding:
        drawn = []
        for seed in (7, 7, 8):
            choice = _choice(await self._ask(Sampling(temperature=1.0), SOME, {"seed": seed}))
            drawn.append(choice.token_ids if choice is not None else None)
        same = drawn[0] is not None and drawn[0] == drawn[1]
        words = "twice the same" if same else "two different"
        others = "another seed gave others" if drawn[2] != drawn[0] else "another seed gave them too"
        return Finding(Ability.SEED, same, f"one seed gave {words} {SOME} tokens at temperature 1; {others}")

    async def _grammar(self) -> list[Finding]:
        more = {"structured_outputs": {"grammar": GRAMMAR}}
        answer = await self._ask(Sampling(temperature=0.0), len(GRAMMAR_IDS), more)
        choice = _choice(answer)
        if choice is None:
            why = fault_of(self._door.url, answer.status, answer.body).why
            held = False
        else:
            held = choice.token_ids == GRAMMAR_IDS
            why = f"a grammar of {len(GRAMMAR_IDS)} ids was {'kept to' if held else 'taken and not kept to'}"
        led = "it begins its grammar anew with each request: a cut answer goes on by replay from the prompt"
        return [Finding(Ability.GRAMMAR, held, why), Finding(Ability.LED, False, led)]

    def _priority(self) -> Finding:
        """It takes the field under any scheduling policy, so asking tells nothing."""
        if self._serving.priority:
            return Finding(Ability.PRIORITY, True, "it was started with --scheduling-policy priority")
        return Finding(Ability.PRIORITY, False, "it was not started by us with --scheduling-policy priority")

    async def _counters(self, before: float) -> Finding:
        after = await self._steps()
        return Finding(
            Ability.COUNTERS,
            after > before,
            f"its iterations went from {before:g} to {after:g} while we asked"
            if after > before
            else "/metrics counts no iterations and no tokens",
        )

    async def _steps(self) -> float:
        answer = await self._door.ask("GET", "/metrics", None, self._serving.answer_s)
        told = exposition.parse(answer.body) if answer.status == 200 else {}
        return told.get("vllm:iteration_tokens_total_count", told.get("vllm:generation_tokens_total", 0.0))

    async def _ask(self, sampling: Sampling, tokens: int, more: dict[str, Any] | None = None) -> Answer:
        asked = {
            "model": self._serving.served_as,
            "prompt": PROMPT,
            "max_tokens": tokens,
            "ignore_eos": True,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            **sampled(sampling),
            **(more or {}),
        }
        return await self._door.ask("POST", "/v1/completions", msgspec.json.encode(asked), ASK_S)


def _choice(answer: Answer) -> Choice | None:
    if answer.status != 200:
        return None
    try:
        choices = msgspec.json.decode(answer.body, type=Event).choices
    except msgspec.DecodeError:
        return None
    return choices[0] if choices else None
