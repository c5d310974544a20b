"""Any other server with OpenAI's `/v1/completions`: text out, and prompts as ids where it takes the folder's ids, else as text.

What it says comes as text and is spelt with the tokens of the model's folder: piece by piece, as it comes, so that where a piece
is one token it is that token again. Tokens are counted so too, which bounds an answer by max_tokens in any case. No token is lost
or doubled when an answer goes on elsewhere, but the text on both sides of a cut may have been read as other tokens: the answer is
continued fairly, and not exactly.

A prompt as text has its markers written out. Many servers put a beginning-of-sentence token before it, and then ours is left
out: it is found by asking. Where what was delivered ends inside a character, that character is left out and made again.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec
from msgspec import Struct, structs

from holdfast.domain.engine import Abilities, EngineKind
from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused, Fault
from holdfast.domain.release import Exactness, Release
from holdfast.domain.replica import Load, Probe
from holdfast.domain.request import Chunk, Finish, Generation
from holdfast.engine.answer import Answer
from holdfast.engine.http import HttpDoor, fault_of
from holdfast.engine.openai_learn import Learner, Manners
from holdfast.engine.served import Served
from holdfast.engine.serving import Serving
from holdfast.engine.spelling import Spelling
from holdfast.policy.continuation import derived_seed

COMPLETIONS = "/v1/completions"
SEEDS = 1 << 31  # some keep seeds in 32 bits
STOPS_MAX = 4  # OpenAI's bound; later ones are still looked for among the ids
_FINISHES = {"stop": Finish.STOP, "length": Finish.LENGTH}


class _Choice(Struct):
    text: str | None = None
    finish_reason: str | None = None


class _Event(Struct):
    choices: list[_Choice] = []
    error: Any = None


class OpenAiEngine:
    """Implements the ForeignEngine port. Load and step are what this adapter sees itself: such a server tells neither."""

    def __init__(self, door: HttpDoor, serving: Serving, spelling: Spelling) -> None:
        self._door, self._spelling = door, spelling
        self._serving = serving if serving.vocab_size else structs.replace(serving, vocab_size=len(spelling))
        self._manners = Manners()
        self._served = Served(door, serving.answer_s, serving.outside)
        self._abilities: Abilities | None = None
        self._running = self._pieces = 0

    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        """See the port."""
        answer = Answer.to(generation, self._serving)
        if generation.sampling.grammar:
            raise BadRequest("an OpenAI-compatible server takes no grammars of ours", "grammar")
        if answer.left == 0:
            yield answer.end(Finish.LENGTH)
            return
        body, again = body_of(answer, self._serving.served_as, self._manners, self._spelling)
        seam = _Seam(self._spelling, again)
        heard: asyncio.Queue[bytes | Fault | None] = asyncio.Queue()
        listening = asyncio.ensure_future(self._listen(msgspec.json.encode(body), heard))
        try:
            while (data := await heard.get()) is not None:
                if isinstance(data, Fault):
                    raise data
                text, finish = self._read(data)
                if (text or finish is not None) and (ids := seam.ids_of(text, last=finish is not None)):
                    yield answer.take(ids)
                if finish is not None and not answer.over:
                    yield answer.end(finish)
                if answer.over:
                    return
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)
        raise EngineLost(f"{self._door.url} ended a stream without a finish reason")

    async def _listen(self, body: bytes, heard: "asyncio.Queue[bytes | Fault | None]") -> None:
        """Hear one answer to its end, however slow its reader is: only so it is known what still runs there."""
        self._running += 1
        try:
            async with aclosing(self._served.events(COMPLETIONS, body)) as events:
                async for data in events:
                    self._pieces += 1
                    heard.put_nowait(data)
        except (EngineLost, EngineRefused, BadRequest) as fault:
            heard.put_nowait(fault)
        finally:
            self._running -= 1
            heard.put_nowait(None)  # whatever ended it, nobody waits for more

    async def probe(self) -> Probe:
        """See the port. That its door answers is all that can be asked."""
        try:
            answer = await self._door.ask("GET", "/v1/models", None, self._serving.answer_s)
        except EngineRefused as refused:
            raise EngineLost(refused.why) from refused
        load = Load(step=self._pieces, running=self._running, slots=self._serving.slots or 1)
        if answer.status == 503:
            return Probe(False, load, fault_of(self._door.url, 503, answer.body).why)
        if answer.status != 200:
            raise EngineLost(fault_of(self._door.url, answer.status, answer.body).why)
        await self._served.still()
        return Probe(True, load)

    def describe(self) -> Release | None:
        """See the port."""
        if self._abilities is None:
            return None
        serving = self._serving
        return Release(model=serving.model, engine=EngineKind.OPENAI, digest=serving.digest, exactness=Exactness.FAIR)

    async def learn(self) -> Abilities:
        """See the port. Some answers of a few tokens are asked for."""
        learner = Learner(self._door, self._serving, self._spelling)
        self._abilities = await learner.learn()
        self._serving, self._manners = learner.serving, learner.manners
        await self._served.learn(self._serving.served_as)
        return self._abilities

    async def close(self) -> None:
        """See the port."""
        await self._door.close()

    def _read(self, data: bytes) -> tuple[str, Finish | None]:
        """What an event says, and the finish, if it tells one."""
        if data == b"[DONE]":
            raise EngineLost(f"{self._door.url} ended a stream with [DONE] and no finish")
        try:
            event = msgspec.json.decode(data, type=_Event)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise EngineLost(f"{self._door.url} sent what is no completion: {error}") from error
        if event.error is not None:
            said = event.error.get("message") if isinstance(event.error, dict) else event.error
            raise EngineLost(f"{self._door.url} failed in the middle of an answer: {said}").saying(str(said))
        if not event.choices:  # usage, behind the finish
            return "", None
        choice = event.choices[0]
        if choice.finish_reason is None:
            return choice.text or "", None
        finish = _FINISHES.get(choice.finish_reason)
        if finish is None:
            raise EngineLost(f"{self._door.url} ended an answer for a reason of its own: {choice.finish_reason}")
        return choice.text or "", finish


class _Seam:
    """The joint between what was delivered and what comes: `again` are bytes of half a character that will be said again."""

    def __init__(self, spelling: Spelling, again: bytes) -> None:
        self._spelling, self._again, self._held = spelling, again, ""

    def ids_of(self, text: str, last: bool = False) -> list[int]:
        """The ids of the next piece of text; none while it is not known whether it begins as expected. The last one tells."""
        if not self._again:
            return self._spelling.encode(text)
        self._held += text
        said = self._held.encode()
        if len(said) < len(self._again) and not last:
            return []
        again, self._again = self._again, b""
        return self._spelling.spell(said[len(again) :] if said.startswith(again) else said)


def body_of(answer: Answer, named: str, manners: Manners, spelling: Spelling) -> tuple[dict[str, Any], bytes]:
    """The request for what is left of an answer, and the bytes that could not be sent, so that it will say them again."""
    asked, sampling = answer.asked, answer.asked.sampling
    ids, again = spelling.whole([*asked.prompt_ids, *answer.ids])
    body: dict[str, Any] = {
        "model": named,
        "prompt": ids if manners.takes_ids else spelling.text_of(ids[1:] if ids[:1] == manners.bos else ids),
        "max_tokens": answer.left,
        "stream": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": derived_seed(asked.seed, len(answer.ids)) % SEEDS,
    }
    takes = manners.fields
    for name, given in (
        ("presence_penalty", sampling.presence_penalty),
        ("frequency_penalty", sampling.frequency_penalty),
        ("logit_bias", {str(id): by for id, by in sampling.logit_bias}),
        ("stop", [text for id in asked.stop_ids if (text := spelling.text_of([id]))][:STOPS_MAX]),
        ("top_k", sampling.top_k if "top_k" in takes else 0),
        ("min_p", sampling.min_p if "min_p" in takes else 0),
        ("ignore_eos", sampling.ignore_eos and "ignore_eos" in takes),
    ):
        if given:
            body[name] = given
    if "skip_special_tokens" in takes:
        body["skip_special_tokens"] = False  # markers are said, and can be read as such
    return body, again
