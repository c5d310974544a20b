"""A scripted server of vLLM's dialect, for adapters, drills and whoever has no vLLM at hand.

Written from vLLM 0.32 and 0.33's sources and from what a real 0.32 answered: bodies of errors, the stop token among the ids, the
error object that is followed by `[DONE]`, a `/health` that stays green while nothing moves.
"""

import re
from contextlib import aclosing
from typing import Any

from holdfast.domain.ports import Clock
from holdfast.sim.foreign_model import ForeignModel, ForeignScript, Made, Order, QueueFull, Struck
from holdfast.sim.http_engine import Asked, Handler, HttpEngine, Reply
from holdfast.sim.scripted import Mishap

LOGPROBS_MAX = 20
BLOCK_TOKENS = 16
_GRAMMAR_IDS = re.compile(r"<\[(\d+)\]>")
_ON_ARRIVAL = {"refused": 503, "crowded": 429, "rejected": 400}
_KINDS = {
    400: "BadRequestError",
    404: "NotFoundError",
    429: "TooManyRequests",
    500: "InternalServerError",
    503: "ServiceUnavailableError",
}
CORE_DEAD = "EngineCore encountered an issue. See stack trace (above) for the root cause."  # while `model.dead`


class _Refusal(Exception):
    def __init__(self, status: int, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.body = error_body(status, message, param)
        self.status = status


def error_body(status: int, message: str, param: str | None = None) -> dict[str, Any]:
    """Its errors, as a body and as an event."""
    return {"error": {"message": message, "type": _KINDS[status], "param": param, "code": status}}


class VllmServer:
    """`model` is played on with `befall`, `release`, `freeze`, `dead`; `door` opens and closes the address.

    `tells_ids` false is a build before return_token_ids; `grammar` false one without a grammar backend.
    """

    def __init__(self, script: ForeignScript, clock: Clock, tells_ids: bool = True, grammar: bool = True) -> None:
        self.model = ForeignModel(script, clock)
        self.tells_ids, self.grammar = tells_ids, grammar
        self.bodies: list[dict[str, Any]] = []  # of the completions that were asked for
        routes: dict[tuple[str, str], Handler] = {
            ("GET", "/health"): self._health,
            ("GET", "/ping"): self._health,
            ("GET", "/version"): self._version,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/completions"): self._completions,
        }
        self.door = HttpEngine(routes)

    async def _health(self, asked: Asked, reply: Reply) -> None:
        reply.text(503 if self.model.dead else 200, b"")

    async def _version(self, asked: Asked, reply: Reply) -> None:
        reply.json(200, {"version": self.model.script.version})

    async def _models(self, asked: Asked, reply: Reply) -> None:
        if not self._may(asked):
            reply.json(401, {"error": "Unauthorized"})
            return
        script = self.model.script
        model = {"id": script.model, "object": "model", "owned_by": "vllm", "max_model_len": script.context_tokens_max}
        reply.json(200, {"object": "list", "data": [model]})

    async def _metrics(self, asked: Asked, reply: Reply) -> None:
        model, script = self.model, self.model.script
        blocks = script.slots * script.context_tokens_max // BLOCK_TOKENS
        labels = f'engine="0",model_name="{script.model}"'
        figures = {
            "vllm:num_requests_running": model.running,
            "vllm:num_requests_waiting": model.waiting,
            "vllm:kv_cache_usage_perc": model.running / script.slots,
            "vllm:prompt_tokens_total": model.prompt_tokens,
            "vllm:generation_tokens_total": model.generation_tokens,
            "vllm:iteration_tokens_total_count": model.steps,
        }
        lines = [f"{name}{{{labels}}} {float(figure)}" for name, figure in figures.items()]
        info = f'block_size="{BLOCK_TOKENS}",engine="0",num_gpu_blocks="{blocks}"'
        lines += ["# TYPE vllm:cache_config_info gauge", f"vllm:cache_config_info{{{info}}} 1.0", ""]
        reply.text(200, "\n".join(lines).encode(), "text/plain; version=0.0.4; charset=utf-8")

    async def _completions(self, asked: Asked, reply: Reply) -> None:
        if not self._may(asked):
            reply.json(401, {"error": "Unauthorized"})
            return
        try:
            body = asked.json()
            self.bodies.append(body)
            order = self._order(body)
            mishap = self.model.arrive()
        except ValueError as error:  # a DecodeError is one
            reply.json(400, error_body(400, f"1 validation error: {error}"))
        except _Refusal as refusal:
            reply.json(refusal.status, refusal.body)
        except Struck as struck:
            status = _ON_ARRIVAL[struck.kind]
            reply.json(status, error_body(status, f"scripted: {struck.kind}, as it was told"))
        except QueueFull:
            reply.json(503, error_body(503, "Maximum number of queued requests reached. Please retry later."))
        else:
            await self.model.begin(mishap)
            if body.get("stream"):
                await self._stream(body, order, mishap, reply)
            else:
                await self._whole(body, order, mishap, reply)

    def _may(self, asked: Asked) -> bool:
        key = self.model.script.key
        return not key or asked.headers.get("authorization") == f"Bearer {key}"

    def _order(self, body: dict[str, Any]) -> Order:
        """Raises _Refusal for what the real one answers with 400 or 404 before a stream has begun."""
        script, ids, tokens = self.model.script, body.get("prompt", []), body.get("max_tokens", 16)
        if body.get("model") not in (None, script.model):
            raise _Refusal(404, f"The model `{body['model']}` does not exist. Valid aliases: {script.model}.", "model")
        if not ids:
            raise _Refusal(400, "You must pass at least one prompt")
        wrong = next((id for id in ids if not 0 <= id < script.vocab_size), None)
        if wrong is not None:
            raise _Refusal(400, f"Token id {wrong} is out of vocabulary")
        if tokens > script.context_tokens_max:
            bound = script.context_tokens_max
            raise _Refusal(400, f"max_tokens={tokens} cannot be greater than max_model_len={bound}.", "max_tokens")
        if len(ids) > script.context_tokens_max:
            raise _Refusal(
                400, f"This model's maximum context length is {script.context_tokens_max} tokens.", "input_tokens"
            )
        if min(tokens, script.context_tokens_max - len(ids)) < 1:
            raise _Refusal(400, "max_tokens must be at least 1, got 0.", "max_tokens")
        if (body.get("logprobs") or 0) > LOGPROBS_MAX:
            raise _Refusal(400, f"Requested sample logprobs of {body['logprobs']}", "logprobs")
        stops = set(body.get("stop_token_ids") or ())
        if not body.get("ignore_eos"):
            stops.add(script.eos_id)
        greedy = body.get("temperature", 1.0) == 0
        return Order(ids, tokens, None if greedy else body.get("seed", 0), frozenset(stops), self._forced(body))

    def _forced(self, body: dict[str, Any]) -> tuple[int, ...]:
        """A grammar's only answer; grammars of ids in a row are all that this one knows."""
        grammar = (body.get("structured_outputs") or {}).get("grammar", "")
        if grammar and not self.grammar:
            raise _Refusal(400, "Failed to convert the grammar: no backend")
        return tuple(int(id) for id in _GRAMMAR_IDS.findall(grammar))

    async def _stream(self, body: dict[str, Any], order: Order, mishap: Mishap | None, reply: Reply) -> None:
        reply.begin()
        cached, count = self.model.recall(order.ids), 0
        try:
            async with aclosing(self.model.answer(order, mishap)) as answer:
                async for made in answer:
                    count += 1
                    reply.event(self._event(body, made, order.ids if count == 1 else None))
        except Struck as struck:
            self._strike(struck.kind, body, reply)
        else:
            if (body.get("stream_options") or {}).get("include_usage"):
                reply.event({"id": "cmpl-1", "choices": [], "usage": _usage(len(order.ids), count, cached)})
            reply.event(b"[DONE]")

    def _strike(self, kind: str, body: dict[str, Any], reply: Reply) -> None:
        """A stream's bad end."""
        if kind == "garbage":
            reply.piece(b"\x00\xff\xfe{]garbage\n\n")
        elif kind == "cut":
            reply.cut()
        elif kind == "reset":
            reply.reset()
        elif kind != "ended":
            if kind == "fault":
                reply.event(error_body(500, CORE_DEAD if self.model.dead else "Internal server error"))
            if kind == "aborted":
                reply.event({"id": "cmpl-1", "choices": [self._choice(body, [], "abort", None)]})
            reply.event(b"[DONE]")

    async def _whole(self, body: dict[str, Any], order: Order, mishap: Mishap | None, reply: Reply) -> None:
        cached, ids, finish = self.model.recall(order.ids), [], None
        try:
            async with aclosing(self.model.answer(order, mishap)) as answer:
                async for made in answer:
                    ids.append(made.id)
                    finish = _finish(made)
        except Struck:
            reply.json(500, error_body(500, CORE_DEAD))
            return
        choice = self._choice(body, ids, finish, list(order.ids))
        reply.json(200, {"id": "cmpl-1", "choices": [choice], "usage": _usage(len(order.ids), len(ids), cached)})

    def _event(self, body: dict[str, Any], made: Made, prompt: Any) -> dict[str, Any]:
        choice = self._choice(body, [made.id], _finish(made), prompt)
        if made.stopped and made.id in (body.get("stop_token_ids") or ()):
            choice["stop_reason"] = made.id
        return {"id": "cmpl-1", "object": "text_completion", "model": self.model.script.model, "choices": [choice]}

    def _choice(self, body: dict[str, Any], ids: list[int], finish: str | None, prompt: Any) -> dict[str, Any]:
        told = self.tells_ids and body.get("return_token_ids")
        return {
            "index": 0,
            "text": "".join(f" {id}" for id in ids),
            "logprobs": None if body.get("logprobs") is None else _logprobs(ids, body["logprobs"]),
            "finish_reason": finish,
            "stop_reason": None,
            "prompt_token_ids": prompt if told else None,
            "token_ids": ids if told else None,
        }


def _finish(made: Made) -> str | None:
    if not made.last:
        return None
    return "stop" if made.stopped else "length"


def _logprobs(ids: list[int], likeliest: int) -> dict[str, Any]:
    words = [f"token_id:{id}" for id in ids]
    tops = [{word: -0.5, **{f"token_id:{n}": -1.0 - n for n in range(likeliest - 1)}} for word in words]
    return {"tokens": words, "token_logprobs": [-0.5] * len(ids), "top_logprobs": tops}


def _usage(prompt: int, made: int, cached: int) -> dict[str, Any]:
    return {
        "prompt_tokens": prompt,
        "completion_tokens": made,
        "total_tokens": prompt + made,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
