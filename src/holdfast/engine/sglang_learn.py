"""What an SGLang server can do, found by asking it, and how its progress is read.

`/v1/loads` tells what its scheduler wrote down last, without disturbing it; a scheduler that stands still shows the same figures
again. `/health` makes a token and takes a second or more: it is not asked here. `/metrics` is there with --enable-metrics.
"""

from typing import Any

import msgspec
from msgspec import structs

from holdfast.domain.engine import Abilities, Ability, EngineKind, Finding
from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused
from holdfast.domain.replica import Load, Probe
from holdfast.engine.exposition import parse
from holdfast.engine.grammars import AS_JSON, BY_IDS, TOKENS, verdict
from holdfast.engine.http import Answer, HttpDoor, fault_of
from holdfast.engine.serving import Serving

LOADS = "/v1/loads?include=core"
_PROGRESS = (
    "num_used_tokens",
    "num_total_tokens",
    "total_prefill_uncached_tokens",
    "total_prefill_busy_us",
    "decode_moments",
)
_COUNTED = (
    "sglang:realtime_tokens_total",
    "sglang:generation_tokens_total",
    "sglang:prompt_tokens_total",
    "sglang:cuda_graph_passes_total",
)
_TRIED = 8
_TRIAL_S = 120.0


class Pulse:
    """Reads the load. The step counts how often the figures of its progress had changed when they were looked at."""

    def __init__(self, door: HttpDoor, timeout_s: float) -> None:
        self._door, self._timeout_s = door, timeout_s
        self.loads = True
        self.counts = False
        self._seen: Any = None
        self._step = 0

    async def probe(self) -> Probe:
        """See the ForeignEngine port."""
        load, seen = Load(), []
        if self.loads:
            answer = await self.ask("GET", LOADS)
            if answer.status == 503:
                return Probe(False, Load(), fault_of(self._door.url, 503, answer.body).why)
            load, progress = self._by_loads(self._whole(answer))
            seen += progress
        if self.counts:
            answer = await self.ask("GET", "/metrics")
            sums = parse(self._whole(answer))
            seen += [sums.get(name, 0.0) for name in _COUNTED]
            if not self.loads:
                running, queued = (sums.get(f"sglang:num_{name}_reqs", 0.0) for name in ("running", "queue"))
                load = Load(running=int(running), queued=int(queued))
        if seen != self._seen:
            self._seen, self._step = seen, self._step + 1
        return Probe(True, structs.replace(load, step=self._step))

    async def ask(self, method: str, path: str, body: dict[str, Any] | None = None, timeout_s: float = 0.0) -> Answer:
        """A whole answer; a shut door is EngineLost here."""
        coded = None if body is None else msgspec.json.encode(body)
        try:
            return await self._door.ask(method, path, coded, timeout_s or self._timeout_s)
        except EngineRefused as refused:
            raise EngineLost(refused.why) from refused

    def _whole(self, answer: Answer) -> bytes:
        if answer.status != 200:
            raise EngineLost(fault_of(self._door.url, answer.status, answer.body).why)
        return answer.body

    def _by_loads(self, body: bytes) -> tuple[Load, list[Any]]:
        try:
            ranks: list[dict[str, Any]] = msgspec.json.decode(body, type=dict[str, Any])["loads"]
        except (msgspec.DecodeError, msgspec.ValidationError, KeyError) as error:
            raise EngineLost(f"{self._door.url} told of its load what can't be read: {error}") from error

        def total(name: str) -> int:
            return int(sum(rank.get(name) or 0 for rank in ranks))

        load = Load(
            running=total("num_running_reqs"),
            queued=total("num_waiting_reqs"),
            slots=total("max_running_requests") or 1,
            cache_tokens=total("num_used_tokens"),
            cache_tokens_max=total("max_total_num_tokens"),
        )
        return load, [[rank.get(name) for name in _PROGRESS] for rank in ranks]


class Learner:
    """Asks once. `serving` holds what is known of the model afterwards."""

    def __init__(self, door: HttpDoor, serving: Serving, pulse: Pulse) -> None:
        self._door, self.serving, self._pulse = door, serving, pulse

    async def learn(self) -> Abilities:
        """Raises EngineLost: no answer, another model, or no SGLang server at all."""
        info = await self._json("/server_info", "/get_server_info")
        model = self._model(await self._json("/v1/models"))
        self._pulse.loads = (await self._pulse.ask("GET", LOADS)).status == 200
        metrics = await self._pulse.ask("GET", "/metrics")
        self._pulse.counts = metrics.status == 200 and any(name in parse(metrics.body) for name in _COUNTED)
        probe = await self._pulse.probe()
        bounds = [bound for bound in (self.serving.context_tokens_max, _context(info, model)) if bound]
        self.serving = structs.replace(
            self.serving,
            served_as=str(model.get("id") or ""),
            context_tokens_max=min(bounds, default=0),
            slots=probe.load.slots if self._pulse.loads else self.serving.slots,
        )
        return Abilities(
            kind=EngineKind.SGLANG,
            version=str(info.get("version") or ""),
            served_as=self.serving.served_as,
            findings=(
                *await self._ids(),
                await self._seed(),
                await self._grammar(),
                Finding(
                    Ability.LED,
                    False,
                    "each request begins its grammar anew: a cut answer goes on by replay from the prompt",
                ),
                self._priority(info),
                await self._logprobs(),
                self._counters(),
            ),
            slots=self.serving.slots,
            context_tokens_max=self.serving.context_tokens_max,
        )

    async def _json(self, *paths: str) -> dict[str, Any]:
        """What the first of these paths that exists says."""
        for path in paths:
            answer = await self._pulse.ask("GET", path)
            if answer.status == 404 and path != paths[-1]:
                continue
            if answer.status != 200:
                break
            try:
                return msgspec.json.decode(answer.body, type=dict[str, Any])
            except (msgspec.DecodeError, msgspec.ValidationError) as error:
                raise EngineLost(f"{self._door.url}{path} is not what SGLang says: {error}") from error
        raise EngineLost(fault_of(self._door.url, answer.status, answer.body).why)

    def _model(self, models: dict[str, Any]) -> dict[str, Any]:
        listed: list[dict[str, Any]] = models.get("data") or []
        for model in listed:
            if not self.serving.served_as or self.serving.served_as == model.get("id"):
                return model
        names = ", ".join(str(model.get("id")) for model in listed) or "none"
        raise EngineLost(f"{self._door.url} serves no model {self.serving.served_as!r}; it serves {names}")

    async def _try(self, params: dict[str, Any], **more: Any) -> dict[str, Any] | str:
        """A short answer to a prompt of two ids; a sentence where it is refused."""
        sampling = {"max_new_tokens": _TRIED, "temperature": 0.0, "ignore_eos": True} | params
        body = {"input_ids": [100, 200], "sampling_params": sampling, **more}
        answer = await self._pulse.ask("POST", "/generate", body, _TRIAL_S)
        if answer.status != 200:
            fault = fault_of(self._door.url, answer.status, answer.body)
            if isinstance(fault, BadRequest):
                return fault.why
            raise EngineLost(fault.why)
        try:
            return msgspec.json.decode(answer.body, type=dict[str, Any])
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise EngineLost(f"{self._door.url}/generate is not what SGLang says: {error}") from error

    async def _ids(self) -> tuple[Finding, Finding]:
        told = await self._try({})
        if isinstance(told, str):
            return Finding(Ability.IDS_IN, False, told), Finding(Ability.IDS_OUT, False, told)
        meta, ids = told.get("meta_info") or {}, told.get("output_ids")
        read = meta.get("prompt_tokens")
        out = isinstance(ids, list) and len(ids) == meta.get("completion_tokens")
        return (
            Finding(Ability.IDS_IN, read == 2, f"it read {read} tokens of a prompt of 2 ids"),
            Finding(Ability.IDS_OUT, out, "it told the id of each token" if out else "output_ids are not there"),
        )

    async def _seed(self) -> Finding:
        answers = [await self._try({"temperature": 2.0, "sampling_seed": seed}) for seed in (1, 1, 2)]
        ids = [one.get("output_ids") if isinstance(one, dict) else None for one in answers]
        if ids[0] is None or ids[0] != ids[1]:
            return Finding(
                Ability.SEED, False, "one seed gave two different answers (--enable-deterministic-inference is off)"
            )
        if ids[0] == ids[2]:
            return Finding(Ability.SEED, False, "two seeds gave one and the same answer")
        return Finding(Ability.SEED, True, "one seed gave one answer twice, another another")

    async def _grammar(self) -> Finding:
        told: list[dict[str, Any]] = []
        for grammar in (BY_IDS, AS_JSON):
            one = await self._try({"ebnf": grammar, "ignore_eos": False, "max_new_tokens": TOKENS})
            if isinstance(one, str):
                why = f"Lark is refused (but not by --grammar-backend llguidance): {one}"
                return Finding(Ability.GRAMMAR, False, why)
            told.append(one)
        return Finding(Ability.GRAMMAR, *verdict(told[0].get("output_ids") or [], str(told[1].get("text"))))

    def _priority(self, info: dict[str, Any]) -> Finding:
        has = bool(info.get("enable_priority_scheduling"))
        return Finding(Ability.PRIORITY, has, f"it says that --enable-priority-scheduling is {'on' if has else 'off'}")

    async def _logprobs(self) -> Finding:
        told = await self._try({}, return_logprob=True, top_logprobs_num=1)
        has = isinstance(told, dict) and bool((told.get("meta_info") or {}).get("output_token_logprobs"))
        return Finding(
            Ability.LOGPROBS, has, "of the distribution it draws from" if has else "return_logprob brought none"
        )

    def _counters(self) -> Finding:
        if self._pulse.loads:
            more = ", /metrics counts tokens" if self._pulse.counts else "; /metrics is off (--enable-metrics)"
            return Finding(Ability.COUNTERS, True, f"/v1/loads shows its scheduler's progress{more}")
        if self._pulse.counts:
            return Finding(Ability.COUNTERS, True, "/metrics counts tokens, some steps at a time")
        return Finding(Ability.COUNTERS, False, "neither /v1/loads nor /metrics (--enable-metrics) is there")


def _context(info: dict[str, Any], model: dict[str, Any]) -> int:
    """It refuses prompts of max_req_input_len tokens, a few below its context: no answer may grow so long that it could not be
    carried on."""
    bounds = [info.get("max_req_input_len"), model.get("max_model_len")]
    return min((bound for bound in bounds if isinstance(bound, int) and bound > 0), default=0)
