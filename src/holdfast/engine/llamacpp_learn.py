"""What a llama.cpp server can do, found by asking it, and how its progress is read.

`/metrics` is there only when it was started with --metrics, `/slots` unless with --no-slots. Both are answered between two
forward passes by the thread that makes them: an answer is a sign of life, unlike `/health`, which stays green for ever.
"""

from typing import Any

import msgspec
from msgspec import structs

from holdfast.domain.engine import Abilities, Ability, EngineKind, Finding
from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused
from holdfast.domain.replica import Load, Probe
from holdfast.engine.exposition import parse
from holdfast.engine.grammars import AS_JSON, BY_IDS, TOKENS, verdict
from holdfast.engine.http import HttpDoor, fault_of
from holdfast.engine.serving import Serving

GRAMMAR = "%llguidance {}\n"  # marks a Lark grammar, in builds with llguidance
_STEPS = ("llamacpp:n_decode_total", "llamacpp:tokens_predicted_total", "llamacpp:prompt_tokens_total")
_TRIED = 8  # tokens of a trial
_TRIAL_S = 120.0  # a first forward pass may take long on a large model


class Pulse:
    """Reads the load and a step that grows with progress: counters where there are any, else the slots' own figures."""

    def __init__(self, door: HttpDoor, timeout_s: float) -> None:
        self._door, self._timeout_s = door, timeout_s
        self.slots = 1
        self.counts = True  # by /metrics
        self._seen: Any = None
        self._changes = 0

    async def probe(self) -> Probe:
        """See the ForeignEngine port."""
        answer = await self.ask("GET", "/metrics" if self.counts else "/slots")
        if answer.status == 503:
            return Probe(False, Load(slots=self.slots), str(fault_of(self._door.url, 503, answer.body)))
        if answer.status != 200:
            raise EngineLost(fault_of(self._door.url, answer.status, answer.body).why)
        return Probe(True, self._by_metrics(answer.body) if self.counts else self._by_slots(answer.body))

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None, timeout_s: float = 0.0) -> Any:
        """A whole answer; a shut door is EngineLost here."""
        coded = None if body is None else msgspec.json.encode(body)
        try:
            return await self._door.ask(method, path, coded, timeout_s or self._timeout_s)
        except EngineRefused as refused:
            raise EngineLost(refused.why) from refused

    def _by_metrics(self, text: bytes) -> Load:
        sums = parse(text)
        return Load(
            step=int(sum(sums.get(name, 0.0) for name in _STEPS)),
            running=int(sums.get("llamacpp:requests_processing", 0)),
            queued=int(sums.get("llamacpp:requests_deferred", 0)),
            slots=self.slots,
        )

    def _by_slots(self, body: bytes) -> Load:
        try:
            slots = msgspec.json.decode(body, type=list[dict[str, Any]])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise EngineLost(f"{self._door.url} told of its slots what can't be read: {error}") from error
        seen = [(one.get("id_task"), one.get("n_prompt_tokens_processed"), one.get("next_token")) for one in slots]
        if seen != self._seen:
            self._seen, self._changes = seen, self._changes + 1
        running = sum(bool(one.get("is_processing")) for one in slots)
        return Load(step=self._changes, running=running, slots=len(slots) or 1)


class Learner:
    """Asks once. `serving` holds what is known of the model afterwards."""

    def __init__(self, door: HttpDoor, serving: Serving, pulse: Pulse) -> None:
        self._door, self.serving, self._pulse = door, serving, pulse

    async def learn(self) -> Abilities:
        """Raises EngineLost: no answer, another model, or no llama.cpp server at all."""
        props = await self._json("/props")
        models = await self._json("/v1/models")
        model = self._model(models)
        meta = model.get("meta") or {}
        told = (props.get("default_generation_settings") or {}).get("n_ctx") or meta.get("n_ctx")  # of one slot
        bounds = [int(bound) for bound in (self.serving.context_tokens_max, told) if bound]
        self._pulse.slots = int(props.get("total_slots") or 1)
        self.serving = structs.replace(
            self.serving,
            served_as=str(model.get("id") or ""),
            vocab_size=int(meta.get("n_vocab") or self.serving.vocab_size),
            context_tokens_max=min(bounds, default=0),
            slots=self._pulse.slots,
        )
        found = [
            *await self._ids(),
            await self._seed(),
            await self._grammar(),
            Finding(
                Ability.LED,
                False,
                "each request begins its grammar anew: a cut answer goes on by replay from the prompt",
            ),
            Finding(Ability.PRIORITY, False, "its queue is first come, first served"),
            await self._logprobs(),
            await self._counters(),
        ]
        return Abilities(
            kind=EngineKind.LLAMACPP,
            version=str(props.get("build_info") or ""),
            served_as=self.serving.served_as,
            findings=tuple(found),
            slots=self.serving.slots,
            context_tokens_max=self.serving.context_tokens_max,
        )

    async def _json(self, path: str) -> dict[str, Any]:
        answer = await self._pulse.ask("GET", path)
        if answer.status != 200:
            raise EngineLost(fault_of(self._door.url, answer.status, answer.body).why)
        try:
            return msgspec.json.decode(answer.body, type=dict[str, Any])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise EngineLost(f"{self._door.url}{path} is not what a llama.cpp server says: {error}") from error

    def _model(self, models: dict[str, Any]) -> dict[str, Any]:
        listed: list[dict[str, Any]] = models.get("data") or []
        wanted = self.serving.served_as
        for model in listed:
            if not wanted or wanted == model.get("id") or wanted in (model.get("aliases") or ()):
                return model
        names = ", ".join(str(model.get("id")) for model in listed) or "none"
        raise EngineLost(f"{self._door.url} serves no model {wanted!r}; it serves {names}")

    async def _try(self, **more: Any) -> dict[str, Any] | str:
        """A short answer to a prompt of two ordinary ids; a sentence where it is refused."""
        high = self.serving.vocab_size or 1000
        body = {
            "prompt": [high // 2, high // 3],
            "n_predict": _TRIED,
            "return_tokens": True,
            "cache_prompt": False,
            **more,
        }
        answer = await self._pulse.ask("POST", "/completion", body, _TRIAL_S)
        if answer.status != 200:
            fault = fault_of(self._door.url, answer.status, answer.body)
            if isinstance(fault, BadRequest | EngineLost):
                return fault.why
            raise EngineLost(fault.why)
        try:
            return msgspec.json.decode(answer.body, type=dict[str, Any])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise EngineLost(f"{self._door.url}/completion is not what a llama.cpp server says: {error}") from error

    async def _ids(self) -> tuple[Finding, Finding]:
        told = await self._try(temperature=0.0)
        if isinstance(told, str):
            return Finding(Ability.IDS_IN, False, told), Finding(Ability.IDS_OUT, False, told)
        read, ids = told.get("tokens_evaluated"), told.get("tokens")
        out = (
            isinstance(ids, list)
            and len(ids) == told.get("tokens_predicted")
            and all(isinstance(id, int) for id in ids)
        )
        return (
            Finding(Ability.IDS_IN, read == 2, f"it read {read} tokens of a prompt of 2 ids"),
            Finding(Ability.IDS_OUT, out, "it told the id of each token" if out else "return_tokens told no ids"),
        )

    async def _seed(self) -> Finding:
        answers = [await self._try(temperature=2.0, samplers=["temperature"], seed=seed) for seed in (1, 1, 2)]
        ids = [one.get("tokens") if isinstance(one, dict) else None for one in answers]
        if ids[0] is None or ids[0] != ids[1]:
            return Finding(Ability.SEED, False, "one seed gave two different answers")
        if ids[0] == ids[2]:
            return Finding(Ability.SEED, False, "two seeds gave one and the same answer")
        return Finding(Ability.SEED, True, "one seed gave one answer twice, another another")

    async def _grammar(self) -> Finding:
        told: list[dict[str, Any]] = []
        for grammar in (BY_IDS, AS_JSON):
            one = await self._try(temperature=0.0, grammar=GRAMMAR + grammar, n_predict=TOKENS)
            if isinstance(one, str):
                return Finding(Ability.GRAMMAR, False, f"a Lark grammar was refused: {one}")
            told.append(one)
        return Finding(Ability.GRAMMAR, *verdict(told[0].get("tokens") or [], str(told[1].get("content"))))

    async def _logprobs(self) -> Finding:
        told = await self._try(temperature=0.0, n_probs=1)
        has = isinstance(told, dict) and bool(told.get("completion_probabilities"))
        why = "of the plain softmax, before penalties and bias" if has else "n_probs brought none"
        return Finding(Ability.LOGPROBS, has, why)

    async def _counters(self) -> Finding:
        metrics = await self._pulse.ask("GET", "/metrics")
        self._pulse.counts = metrics.status == 200 and any(name in parse(metrics.body) for name in _STEPS)
        if self._pulse.counts:
            return Finding(Ability.COUNTERS, True, "/metrics counts forward passes and tokens")
        slots = await self._pulse.ask("GET", "/slots")
        if slots.status == 200:
            return Finding(Ability.COUNTERS, True, "/slots shows each slot's progress; /metrics is off (--metrics)")
        return Finding(Ability.COUNTERS, False, "both /metrics (--metrics) and /slots (--slots) are off")
