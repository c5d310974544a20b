"""A scripted server with OpenAI's completions and no more, for the adapter of whatever speaks that API.

It reads and says text, by a tokenizer that it is given. Its manners are those in which real servers differ: whether it puts a
beginning-of-sentence token before a text, whether it takes prompts of ids, and which fields beyond the API it knows.
"""

from collections.abc import Callable, Sequence
from contextlib import aclosing
from typing import Any

from msgspec import Struct

from holdfast.domain.ports import Clock
from holdfast.sim.foreign_model import ForeignModel, ForeignScript, Made, Order, QueueFull, Struck
from holdfast.sim.http_engine import Asked, Handler, HttpEngine, Reply
from holdfast.sim.scripted import Mishap

_ARRIVALS = {"refused": 503, "crowded": 429, "rejected": 400}
_KNOWN = frozenset(
    (
        *("model", "prompt", "max_tokens", "stream", "temperature", "top_p", "seed", "stop"),
        *("presence_penalty", "frequency_penalty", "logit_bias"),
    )
)


class Manners(Struct, frozen=True, kw_only=True):
    """`encode` makes ids of a text, `decode` text of ids; `bos` is put before texts if it is an id. `fields` are known beyond the
    API's own."""

    encode: Callable[[str], list[int]]
    decode: Callable[[list[int]], str]
    bos: int | None = None
    takes_ids: bool = False
    fields: Sequence[str] = ()


class OpenAiServer:
    """`model` is played on with `befall`, `release`, `freeze`; `door` opens and closes the address."""

    def __init__(self, script: ForeignScript, clock: Clock, manners: Manners) -> None:
        self.model = ForeignModel(script, clock)
        self.bodies: list[dict[str, Any]] = []
        self._manners = manners
        self._known = _KNOWN | set(manners.fields)
        routes: dict[tuple[str, str], Handler] = {
            ("GET", "/v1/models"): self._models,
            ("POST", "/v1/completions"): self._completions,
        }
        self.door = HttpEngine(routes)

    async def _models(self, asked: Asked, reply: Reply) -> None:
        if self._admitted(asked, reply):
            reply.json(200, {"object": "list", "data": [{"id": self.model.script.model, "object": "model"}]})

    def _admitted(self, asked: Asked, reply: Reply) -> bool:
        key = self.model.script.key
        if not key or asked.headers.get("authorization") == f"Bearer {key}":
            return True
        reply.json(401, _error(401, "Incorrect API key provided"))
        return False

    async def _completions(self, asked: Asked, reply: Reply) -> None:
        if not self._admitted(asked, reply):
            return
        body = asked.json()
        self.bodies.append(body)
        strange = sorted(set(body) - self._known)
        if strange:
            reply.json(400, _error(400, f"Unrecognized request argument supplied: {strange[0]}"))
            return
        if not self._manners.takes_ids and not isinstance(body.get("prompt"), str):
            reply.json(400, _error(400, "prompt must be a string"))
            return
        try:
            mishap = self.model.arrive()
        except Struck as struck:
            status = _ARRIVALS[struck.kind]
            reply.json(status, _error(status, f"scripted: {struck.kind}"))
        except QueueFull:
            reply.json(429, _error(429, "Too many requests"))
        else:
            await self.model.begin(mishap)
            answering = self._stream if body.get("stream") else self._whole
            await answering(body, self._order(body), mishap, reply)

    def _order(self, body: dict[str, Any]) -> Order:
        script, prompt = self.model.script, body["prompt"]
        if isinstance(prompt, str):
            bos = [] if self._manners.bos is None else [self._manners.bos]
            ids = [*bos, *self._manners.encode(prompt)]
        else:
            ids = prompt
        stop = body.get("stop") or []
        words = [stop] if isinstance(stop, str) else stop
        stops = {ids[0] for ids in map(self._manners.encode, words) if len(ids) == 1}
        if not body.get("ignore_eos"):
            stops.add(script.eos_id)
        seed = None if body.get("temperature", 1.0) == 0 else body.get("seed", 0)
        return Order(ids, body.get("max_tokens", 16), seed, frozenset(stops))

    async def _stream(self, body: dict[str, Any], order: Order, mishap: Mishap | None, reply: Reply) -> None:
        reply.begin()
        try:
            async with aclosing(self.model.answer(order, mishap)) as answer:
                async for made in answer:
                    reply.event(self._chunk("" if made.stopped else self._manners.decode([made.id]), _finish(made)))
        except Struck as struck:
            if not self._strike(struck.kind, reply):
                return
        reply.event(b"[DONE]")

    def _strike(self, kind: str, reply: Reply) -> bool:
        """A stream's bad end; whether [DONE] follows."""
        if kind == "garbage":
            reply.piece(b"\x00\xff\xfe{]garbage\n\n")
        elif kind == "cut":
            reply.cut()
        elif kind == "reset":
            reply.reset()
        elif kind == "fault":
            reply.event(_error(500, "The server had an error while processing your request"))
        elif kind == "aborted":
            reply.event(self._chunk("", "abort"))
        return kind in ("fault", "aborted", "unfinished")

    async def _whole(self, body: dict[str, Any], order: Order, mishap: Mishap | None, reply: Reply) -> None:
        ids: list[int] = []
        finish = None
        async with aclosing(self.model.answer(order, mishap)) as answer:
            async for made in answer:
                if not made.stopped:
                    ids.append(made.id)
                finish = _finish(made)
        usage = {
            "prompt_tokens": len(order.ids),
            "completion_tokens": len(ids),
            "total_tokens": len(order.ids) + len(ids),
        }
        reply.json(200, self._chunk(self._manners.decode(ids), finish) | {"usage": usage})

    def _chunk(self, text: str, finish: str | None) -> dict[str, Any]:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        return {"id": "cmpl-1", "object": "text_completion", "model": self.model.script.model, "choices": [choice]}


def _finish(made: Made) -> str | None:
    if not made.last:
        return None
    return "stop" if made.stopped else "length"


def _error(status: int, message: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": "error", "param": None, "code": status}}
