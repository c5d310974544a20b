"""A scripted server of SGLang's native dialect, for adapters and drills. Written from the source of 0.5.23, never compared with
a running one: `output_ids` that grow from event to event (or not: `incremental`), failures of every kind told as events with
status 200 and `[DONE]` behind them, a stop token among the ids, an abort that a hang-up brings only after 2 s.
"""

import asyncio
import re
from contextlib import aclosing
from typing import Any

from msgspec import Struct

from holdfast.domain.ports import Clock
from holdfast.sim.foreign_model import ForeignModel, ForeignScript, Made, Order, QueueFull, Struck
from holdfast.sim.http_engine import Asked, Handler, HttpEngine, Reply
from holdfast.sim.scripted import Mishap

JSON_SAID = '{"a": 1, "b": 2}'  # the only JSON that it can say
HANG_UP_S = 2.0  # tokenizer_manager.create_abort_task
INPUT_MARGIN = 6  # tp_worker: prompts of context - 6 tokens and more are refused
_GRAMMAR_IDS = re.compile(r"<\[(\d+)\]>")
DONE = b"[DONE]"


class _Refusal(Exception):
    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class SglangBuild(Struct, frozen=True):
    """Its switches, and its age: --incremental-streaming-output, --enable-deterministic-inference, --grammar-backend llguidance
    (`lark`), --enable-metrics, and whether it has /v1/loads."""

    incremental: bool = False
    deterministic: bool = True
    lark: bool = True
    metrics: bool = True
    loads: bool = True


class SglangServer:
    """`model` is played on with `befall`, `release`, `freeze`; `door` opens the address, `close` shuts it."""

    def __init__(self, script: ForeignScript, clock: Clock, build: SglangBuild) -> None:
        self.model = ForeignModel(script, clock)
        self._build = build
        self.bodies: list[dict[str, Any]] = []
        self.aborted: list[str] = []  # rids, by /abort_request
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._chance = 0
        routes: dict[tuple[str, str], Handler] = {
            ("GET", "/server_info"): self._info,
            ("GET", "/v1/models"): self._models,
            ("GET", "/v1/loads"): self._loads,
            ("GET", "/metrics"): self._metrics,
            ("POST", "/generate"): self._generate,
            ("POST", "/abort_request"): self._abort,
        }
        self.door = HttpEngine(routes)

    async def close(self) -> None:
        """Shut the door, and end what runs behind it."""
        await self.door.close()
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _info(self, asked: Asked, reply: Reply) -> None:
        script = self.model.script
        told = {
            "version": script.version,
            "max_req_input_len": script.context_tokens_max - INPUT_MARGIN,
            "enable_priority_scheduling": False,
            "internal_states": [{}],
        }
        if self._admitted(asked, reply):
            reply.json(200, told)

    async def _models(self, asked: Asked, reply: Reply) -> None:
        script = self.model.script
        model = {
            "id": script.model,
            "object": "model",
            "owned_by": "sglang",
            "max_model_len": script.context_tokens_max,
        }
        if self._admitted(asked, reply):
            reply.json(200, {"object": "list", "data": [model]})

    async def _loads(self, asked: Asked, reply: Reply) -> None:
        if not self._build.loads:
            reply.json(404, {"detail": "Not Found"})
            return
        model, script = self.model, self.model.script
        rank = {
            "dp_rank": 0,
            "num_running_reqs": model.running,
            "num_waiting_reqs": model.waiting,
            "num_used_tokens": model.running * 16,
            "num_total_tokens": model.generation_tokens,
            "max_total_num_tokens": script.slots * script.context_tokens_max,
            "max_running_requests": script.slots,
            "total_prefill_uncached_tokens": model.prompt_tokens,
        }
        if self._admitted(asked, reply):
            reply.json(200, {"version": script.version, "loads": [rank]})

    async def _metrics(self, asked: Asked, reply: Reply) -> None:
        if not self._build.metrics:
            reply.json(404, {"detail": "Not Found"})
            return
        model = self.model
        figures = {
            "realtime_tokens_total": model.generation_tokens + model.prompt_tokens,
            "num_running_reqs": model.running,
            "num_queue_reqs": model.waiting,
        }
        lines = [f'sglang:{name}{{tp_rank="0"}} {figure}' for name, figure in figures.items()]
        reply.text(200, ("\n".join(lines) + "\n").encode(), "text/plain; version=0.0.4")

    async def _abort(self, asked: Asked, reply: Reply) -> None:
        if self._admitted(asked, reply):
            rid = asked.json().get("rid", "")
            self.aborted.append(rid)
            if rid in self._tasks:
                self._tasks[rid].cancel()
            reply.text(200, b"")

    def _admitted(self, asked: Asked, reply: Reply) -> bool:
        key = self.model.script.key
        if not key or asked.headers.get("authorization") == f"Bearer {key}":
            return True
        reply.json(401, {"error": "Unauthorized"})
        return False

    async def _generate(self, asked: Asked, reply: Reply) -> None:
        if not self._admitted(asked, reply):
            return
        body = asked.json()
        self.bodies.append(body)
        if body.get("stream"):
            await self._stream(body, reply)
        else:
            await self._whole(body, reply)

    def _order(self, body: dict[str, Any]) -> Order:
        """Raises _Refusal for what the real one tells of as an error, in a stream too."""
        script, params, ids = self.model.script, body.get("sampling_params") or {}, body.get("input_ids") or []
        context = script.context_tokens_max
        if not ids:
            raise _Refusal("Either text, input_ids or input_embeds should be provided.")
        if not all(0 <= id < script.vocab_size for id in ids):
            raise _Refusal("The input_ids contain values out of the vocabulary.")
        tokens = params.get("max_new_tokens", 128)
        if len(ids) >= context - INPUT_MARGIN:
            raise _Refusal(
                f"The input ({len(ids)} tokens) is longer than the model's context length ({context} tokens)."
            )
        if len(ids) + tokens > context:
            raise _Refusal(f"Requested token count exceeds the model's maximum context length of {context} tokens.")
        grammar = params.get("ebnf") or ""
        if grammar and not self._build.lark:
            raise _Refusal("Invalid grammar request with cache hit: key_type='ebnf'")
        stops = frozenset[int]()
        if not params.get("ignore_eos"):
            stops = frozenset((script.eos_id, *(params.get("stop_token_ids") or ())))
        greedy = params.get("temperature", 1.0) == 0
        return Order(ids, tokens, None if greedy else self._seed(params), stops, _forced(grammar))

    def _seed(self, params: dict[str, Any]) -> int:
        """Seeds count only under deterministic inference; then 42 is what everybody gets who sent none."""
        if self._build.deterministic:
            return int(params.get("sampling_seed", 42))
        self._chance += 1
        return self._chance

    async def _stream(self, body: dict[str, Any], reply: Reply) -> None:
        """Generation is a task of its own, which outlives the caller's connection until somebody aborts it."""
        rid = body.get("rid") or f"own-{len(self.bodies)}"
        task = asyncio.get_running_loop().create_task(self._events(body, reply))
        self._tasks[rid] = task
        task.add_done_callback(lambda _: self._tasks.pop(rid, None))
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if not task.done():
                self._tasks[f"{rid} is left"] = asyncio.get_running_loop().create_task(self._abandoned(rid, task))
                raise
            reply.event(_event([], _abort_reason("Aborted", None), 0, 0, 0))

    async def _abandoned(self, rid: str, task: "asyncio.Task[None]") -> None:
        await self._clock.sleep(HANG_UP_S)
        task.cancel()
        self._tasks.pop(f"{rid} is left", None)

    async def _events(self, body: dict[str, Any], reply: Reply) -> None:
        try:
            order = self._order(body)
            mishap = self.model.arrive()
        except _Refusal as refusal:
            reply.begin()
            error = {
                "message": str(refusal),
                "type": "invalid_request_error",
                "code": refusal.status,
                "retryable": False,
            }
            reply.event({"error": error})
        except QueueFull:
            reply.begin()
            reply.event(_event([], _abort_reason("The request queue is full.", 503), 0, 0, 0))
        except Struck as struck:
            if struck.kind == "refused":
                reply.json(503, {"detail": "not ready"})
                return
            reply.begin()
            status = 503 if struck.kind == "crowded" else 400
            reply.event(_event([], _abort_reason(f"scripted: {struck.kind}", status), 0, 0, 0))
        else:
            await self.model.begin(mishap)
            reply.begin()
            if not await self._answer(body, order, mishap, reply):
                return
        reply.event(DONE)

    async def _answer(self, body: dict[str, Any], order: Order, mishap: Mishap | None, reply: Reply) -> bool:
        """Whether the stream is to be ended by [DONE]."""
        cached, ids = self.model.recall(order.ids), []
        try:
            async with aclosing(self.model.answer(order, mishap)) as answer:
                async for made in answer:
                    ids.append(made.id)
                    shown = ids[-1:] if self._build.incremental else list(ids)
                    event = _event(shown, _reason(made, len(ids)), len(order.ids), len(ids), cached)
                    if body.get("return_logprob"):
                        event["meta_info"] |= _logprobs(shown, body.get("top_logprobs_num") or 0)
                    reply.event(event)
        except Struck as struck:
            return _strike(struck.kind, reply, ids)
        return True

    async def _whole(self, body: dict[str, Any], reply: Reply) -> None:
        try:
            order = self._order(body)
            mishap = self.model.arrive()
        except (_Refusal, Struck) as refusal:
            reply.json(400, {"error": {"message": str(refusal)}})
            return
        ids: list[int] = []
        reason = None
        async with aclosing(self.model.answer(order, mishap)) as answer:
            async for made in answer:
                ids.append(made.id)
                reason = _reason(made, len(ids))
        told = _event(ids, reason, len(order.ids), len(ids), 0)
        if "%json" in ((body.get("sampling_params") or {}).get("ebnf") or ""):
            told["text"] = JSON_SAID
        if body.get("return_logprob"):
            told["meta_info"] |= _logprobs(ids, body.get("top_logprobs_num") or 0)
        reply.json(200, told)


def _strike(kind: str, reply: Reply, ids: list[int]) -> bool:
    """A stream's bad end; whether [DONE] follows."""
    if kind == "garbage":
        reply.piece(b"\x00\xff\xfe{]garbage\n\n")
    elif kind == "cut":
        reply.cut()
    elif kind == "reset":
        reply.reset()
    elif kind == "fault":
        error = {"message": "scripted: failed", "type": "invalid_request_error", "code": 500, "retryable": False}
        reply.event({"error": error})
    elif kind == "aborted":
        reply.event(_event(ids, _abort_reason("Aborted", None), 0, len(ids), 0))
    return kind in ("fault", "aborted", "unfinished")


def _forced(grammar: str) -> tuple[int, ...]:
    """A grammar's only answer; grammars of ids in a row are all that this one knows."""
    return tuple(int(id) for id in _GRAMMAR_IDS.findall(grammar))


def _reason(made: Made, count: int) -> dict[str, Any] | None:
    if not made.last:
        return None
    return {"type": "stop", "matched": made.id} if made.stopped else {"type": "length", "length": count}


def _abort_reason(message: str, status: int | None) -> dict[str, Any]:
    return {"type": "abort", "message": message, "status_code": status, "err_type": None}


def _event(ids: list[int], reason: dict[str, Any] | None, prompt: int, count: int, cached: int) -> dict[str, Any]:
    meta = {
        "id": "rid",
        "finish_reason": reason,
        "prompt_tokens": prompt,
        "completion_tokens": count,
        "cached_tokens": cached,
        "weight_version": "default",
    }
    return {"text": "".join(f" {id}" for id in ids), "output_ids": ids, "meta_info": meta}


def _logprobs(ids: list[int], likeliest: int) -> dict[str, Any]:
    rows = [[-0.5, id, None] for id in ids]
    told: dict[str, Any] = {"output_token_logprobs": rows, "output_token_logprobs_length": len(rows)}
    if likeliest:
        told["output_top_logprobs"] = [
            [[-0.5, id, None], *([-1.0 - n, n, None] for n in range(likeliest - 1))] for id in ids
        ]
    return told
