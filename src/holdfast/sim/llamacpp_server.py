"""A scripted server of llama.cpp's dialect, for adapters, drills and whoever has no llama.cpp at hand.

Written from tools/server's sources and from what a real one answered (tests/engine/recorded): progress events that carry a token
0 which nobody made, ids that are left out of a stream because the text ends inside a character, an end of its own at the token
that ends texts, and no `[DONE]`. Its queue has no bound; what it refuses while it loads is `refused`.
"""

import re
from contextlib import aclosing
from typing import Any

from holdfast.domain.ports import Clock
from holdfast.sim.foreign_model import ForeignModel, ForeignScript, Made, Order, Struck
from holdfast.sim.http_engine import Asked, Handler, HttpEngine, Reply
from holdfast.sim.scripted import Mishap

JSON_SAID = '{"a": 1, "b": 2}'  # the only JSON that it can say
_GRAMMAR = "%llguidance {}\n"
_GRAMMAR_IDS = re.compile(r"<\[(\d+)\]>")
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    500: "server_error",
    501: "not_supported_error",
    503: "unavailable_error",
}
_ANY_SEED = 0xFFFFFFFF


def error_body(status: int, message: str) -> dict[str, Any]:
    """Its errors, as a body and as an event."""
    return {"error": {"code": status, "message": message, "type": _KINDS[status]}}


class _Refusal(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class LlamaCppServer:
    """`model` is played on with `befall`, `release`, `freeze`; `door` opens and closes the address. `halves` are ids after which
    the text ends inside a character. `metrics` and `slots` are its switches, `grammar` a build with llguidance."""

    def __init__(
        self,
        script: ForeignScript,
        clock: Clock,
        *,
        halves: frozenset[int] = frozenset(),
        metrics: bool = True,
        slots: bool = True,
        grammar: bool = True,
    ) -> None:
        self.model = ForeignModel(script, clock)
        self.halves, self.metrics, self.slots, self.grammar = halves, metrics, slots, grammar
        self.bodies: list[dict[str, Any]] = []
        routes: dict[tuple[str, str], Handler] = {
            ("GET", "/health"): self._health,
            ("GET", "/props"): self._props,
            ("GET", "/metrics"): self._metrics,
            ("GET", "/slots"): self._slots,
            ("GET", "/v1/models"): self._models,
            ("POST", "/completion"): self._completion,
        }
        self.door = HttpEngine(routes)

    async def _health(self, asked: Asked, reply: Reply) -> None:
        reply.json(200, {"status": "ok"})

    async def _props(self, asked: Asked, reply: Reply) -> None:
        if self._admitted(asked, reply):
            script = self.model.script
            settings = {"params": {}, "n_ctx": script.context_tokens_max}
            reply.json(
                200,
                {
                    "default_generation_settings": settings,
                    "total_slots": script.slots,
                    "model_alias": script.model,
                    "build_info": script.version,
                },
            )

    async def _models(self, asked: Asked, reply: Reply) -> None:
        script = self.model.script
        meta = {"n_vocab": script.vocab_size, "n_ctx": script.context_tokens_max, "n_ctx_train": 4096}
        model = {"id": script.model, "aliases": [script.model], "object": "model", "owned_by": "llamacpp", "meta": meta}
        reply.json(200, {"object": "list", "data": [model]})

    async def _metrics(self, asked: Asked, reply: Reply) -> None:
        if not self._admitted(asked, reply):
            return
        if not self.metrics:
            message = "This server does not support metrics endpoint. Start it with `--metrics`"
            reply.json(501, error_body(501, message))
            return
        model = self.model
        figures = {
            "prompt_tokens_total": model.prompt_tokens,
            "tokens_predicted_total": model.generation_tokens,
            "n_decode_total": model.steps,
            "requests_processing": model.running,
            "requests_deferred": model.waiting,
        }
        lines = [f"llamacpp:{name} {figure}" for name, figure in figures.items()]
        reply.text(200, ("\n".join(lines) + "\n").encode(), "text/plain; version=0.0.4")

    async def _slots(self, asked: Asked, reply: Reply) -> None:
        if not self._admitted(asked, reply):
            return
        if not self.slots:
            message = "This server does not support slots endpoint. Start it with `--slots`"
            reply.json(501, error_body(501, message))
            return
        model, task = self.model, len(self.bodies)  # an idle slot goes on showing its last task
        busy: list[dict[str, Any]] = [
            {"id": n, "is_processing": True, "id_task": task, "next_token": [{"n_decoded": model.steps}]}
            for n in range(model.running)
        ]
        idle = [{"id": n, "is_processing": False, "id_task": task} for n in range(model.running, model.script.slots)]
        reply.json(200, busy + idle)

    def _admitted(self, asked: Asked, reply: Reply) -> bool:
        key = self.model.script.key
        if not key or asked.headers.get("authorization") == f"Bearer {key}":
            return True
        reply.json(401, error_body(401, "Invalid API Key"))
        return False

    async def _completion(self, asked: Asked, reply: Reply) -> None:
        if not self._admitted(asked, reply):
            return
        try:
            body = asked.json()
            self.bodies.append(body)
            order = self._order(body)
            mishap = self.model.arrive()
        except ValueError as error:  # a DecodeError is one
            reply.json(400, error_body(400, str(error)))
        except _Refusal as refusal:
            reply.json(refusal.status, error_body(refusal.status, str(refusal)))
        except Struck as struck:
            status = 400 if struck.kind == "rejected" else 503
            reply.json(status, error_body(status, "Loading model" if status == 503 else "scripted: rejected"))
        else:
            await self.model.begin(mishap)
            answering = self._stream if body.get("stream") else self._whole
            await answering(body, order, mishap, reply)

    def _order(self, body: dict[str, Any]) -> Order:
        """Raises _Refusal for what the real one answers with 400."""
        script, ids, tokens = self.model.script, body.get("prompt") or [], body.get("n_predict", -1)
        if not ids:
            raise _Refusal(400, '"prompt" must not be empty')
        if not all(0 <= id < script.vocab_size for id in ids):
            raise _Refusal(400, "Prompt contains invalid tokens")
        if len(ids) >= script.context_tokens_max:
            context = script.context_tokens_max
            raise _Refusal(400, f"request ({len(ids)} tokens) exceeds the available context size ({context} tokens)")
        seed = body.get("seed", _ANY_SEED)
        greedy = body.get("temperature", 0.8) <= 0
        tokens = script.context_tokens_max if tokens < 0 else tokens
        return Order(ids, tokens, None if greedy else seed, frozenset((script.eos_id,)), self._forced(body))

    def _forced(self, body: dict[str, Any]) -> tuple[int, ...]:
        """A grammar's only answer; grammars of ids in a row are all that this one knows."""
        grammar = body.get("grammar") or ""
        if grammar and not (self.grammar and grammar.startswith(_GRAMMAR)):
            raise _Refusal(400, "failed to parse grammar: llguidance is not enabled")
        return tuple(int(id) for id in _GRAMMAR_IDS.findall(grammar))

    async def _stream(self, body: dict[str, Any], order: Order, mishap: Mishap | None, reply: Reply) -> None:
        cached, count, last = self.model.recall(order.ids), 0, None
        try:
            async with aclosing(self.model.answer(order, mishap)) as answer:
                async for made in answer:
                    if not reply.begun:
                        reply.begin()
                        if body.get("return_progress"):
                            reply.event(_progress(len(order.ids), cached))
                    count, last = count + 1, made
                    if made.id not in self.halves:
                        reply.event(_partial(body, made, count, len(order.ids)))
        except Struck as struck:
            self._strike(struck.kind, reply)
        else:
            reply.event(self._final(body, [], count, order, last))

    def _strike(self, kind: str, reply: Reply) -> None:
        """A stream's bad end. Before its first event a failure still has a status."""
        if kind == "fault" and not reply.begun:
            reply.json(500, error_body(500, "Compute error."))
            return
        if not reply.begun:
            reply.begin()
        if kind == "garbage":
            reply.piece(b"\x00\xff\xfe{]garbage\n\n")
        elif kind == "cut":
            reply.cut()
        elif kind == "reset":
            reply.reset()
        elif kind == "fault":
            reply.event(error_body(500, "Compute error."))

    async def _whole(self, body: dict[str, Any], order: Order, mishap: Mishap | None, reply: Reply) -> None:
        ids: list[int] = []
        last = None
        try:
            async with aclosing(self.model.answer(order, mishap)) as answer:
                async for made in answer:
                    ids.append(made.id)
                    last = made
        except Struck:
            reply.json(500, error_body(500, "Compute error."))
            return
        told = self._final(body, ids, len(ids), order, last)
        if body.get("n_probs"):
            told["completion_probabilities"] = [_probability(id, body["n_probs"]) for id in ids]
        reply.json(200, told)

    def _final(
        self, body: dict[str, Any], ids: list[int], count: int, order: Order, last: Made | None
    ) -> dict[str, Any]:
        eos = last is not None and last.stopped
        told = {
            "index": 0,
            "content": JSON_SAID if "%json" in (body.get("grammar") or "") else "".join(f" {id}" for id in ids),
            "tokens": ids if body.get("return_tokens") else [],
            "id_slot": 0,
            "stop": True,
            "model": self.model.script.model,
            "tokens_predicted": count,
            "tokens_evaluated": len(order.ids),
            "stop_type": "eos" if eos else "limit",
            "stopping_word": "",
            "truncated": len(order.ids) + count >= self.model.script.context_tokens_max,
        }
        fields = body.get("response_fields")
        return {name: told[name] for name in fields if name in told} if fields else told


def _progress(prompt: int, cached: int) -> dict[str, Any]:
    told = {"total": prompt, "cache": cached, "processed": prompt, "time_ms": 1}
    return {
        "index": 0,
        "content": "",
        "tokens": [0],
        "stop": False,
        "id_slot": -1,
        "tokens_predicted": 0,
        "tokens_evaluated": prompt,
        "prompt_progress": told,
    }


def _partial(body: dict[str, Any], made: Made, count: int, prompt: int) -> dict[str, Any]:
    told: dict[str, Any] = {
        "index": 0,
        "content": "" if made.stopped else "\ufffd",
        "tokens": [made.id],
        "stop": False,
        "id_slot": -1,
        "tokens_predicted": count,
        "tokens_evaluated": prompt,
    }
    if body.get("n_probs"):
        told["completion_probabilities"] = [_probability(made.id, body["n_probs"])]
    return told


def _probability(id: int, likeliest: int) -> dict[str, Any]:
    top = [{"id": id, "token": "", "bytes": [], "logprob": -0.5}]
    top += [{"id": n, "token": "", "bytes": [], "logprob": -1.0 - n} for n in range(likeliest - 1)]
    return {"id": id, "token": "", "bytes": [], "logprob": -0.5, "top_logprobs": top}
