"""An adapter, whole: to the parrot engine, whose dialect is told in parrot_engine.py."""

import asyncio
from collections.abc import AsyncGenerator
from hashlib import sha256

import msgspec
from msgspec import Struct

from holdfast.domain.engine import Abilities, Ability, EngineKind, Finding
from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused
from holdfast.domain.release import Exactness, Release
from holdfast.domain.replica import Load, Probe
from holdfast.domain.request import Chunk, Finish, Generation, TokenLogprob
from holdfast.engine.replay import replayed
from holdfast.policy.continuation import derived_seed


class Said(Struct):
    """Any line that the engine says."""

    id: int = -1
    logprob: float = 0.0
    cached: int = 0
    end: str = ""
    done: bool = False
    error: str = ""
    refused: str = ""
    wrong: str = ""
    steps: int = 0
    running: int = 0
    queued: int = 0
    slots: int = 0
    model: str = ""
    version: str = ""
    context: int = 0
    vocabulary: int = 0


LOOK_S = 5.0  # a door that says nothing for so long is silent
FINISHES = {"stop": Finish.STOP, "length": Finish.LENGTH}


class Parrot:
    """A ForeignEngine."""

    def __init__(self, port: int) -> None:
        self._port, self.look_s = port, LOOK_S
        self._closed = False
        self._who: Said | None = None

    async def learn(self) -> Abilities:
        self._who = who = await self._ask("who")
        findings = (
            Finding(Ability.IDS_IN, True, "its dialect has nothing but ids"),
            Finding(Ability.IDS_OUT, True, "its dialect has nothing but ids"),
            Finding(Ability.SEED, True, "it has drawn by the seed since version 3"),
            Finding(Ability.LOGPROBS, True, "every token comes with its own"),
            Finding(Ability.COUNTERS, True, "a look tells the steps that it made"),
            Finding(Ability.GRAMMAR, True, "they can be held to ids in a row"),
            Finding(Ability.LED, False, "each answer begins its grammar: a cut one goes on by replay from the prompt"),
            Finding(Ability.PRIORITY, False, "parrots say what they like when they like"),
        )
        return Abilities(
            kind=EngineKind.OPENAI,
            version=who.version,
            served_as=who.model,
            findings=findings,
            slots=(await self._ask("look")).slots,
            context_tokens_max=who.context,
        )

    def describe(self) -> Release | None:
        who = self._who
        if who is None:
            return None
        digest = sha256(f"parrot {who.version} {who.model}".encode()).hexdigest()
        return Release(model=who.model, engine="parrot", digest=digest, exactness=Exactness.GREEDY)

    async def probe(self) -> Probe:
        told = await self._ask("look")
        return Probe(ready=True, load=Load(step=told.steps, running=told.running, queued=told.queued, slots=told.slots))

    async def close(self) -> None:
        self._closed = True

    @replayed  # parrots begin a grammar with the answer
    async def generate(self, generation: Generation) -> AsyncGenerator[Chunk, None]:
        so_far = generation.prompt_ids + generation.delivered_ids
        room = self._room(generation)
        if room <= 0:
            yield Chunk([], Finish.LENGTH)
            return
        reader, writer = await self._dial(EngineRefused)
        try:
            writer.write(
                line(
                    do="answer",
                    ids=so_far,
                    max=room,
                    stop=generation.stop_ids,
                    seed=derived_seed(generation.seed, len(generation.delivered_ids)),
                    greedy=generation.sampling.temperature == 0,
                    held=generation.sampling.grammar,
                )
            )
            first = True
            while True:
                said = await hear(reader)
                if said.end:
                    if said.end not in FINISHES:
                        raise EngineLost(f"the engine ended the answer: {said.end}")
                    yield Chunk([], FINISHES[said.end])
                    return
                if said.id in generation.stop_ids:
                    continue
                yield self._chunk(said, generation, first)
                first = False
        finally:
            writer.close()

    def _room(self, generation: Generation) -> int:
        """How many tokens may come; BadRequest for what no parrot could do."""
        assert self._who is not None, "learn comes first"
        prompt, context = generation.prompt_ids, self._who.context
        if not prompt:
            raise BadRequest("the prompt is empty", "prompt_ids")
        if not 0 <= min(prompt) <= max(prompt) < self._who.vocabulary:
            raise BadRequest(f"an id is outside the vocabulary of {self._who.vocabulary}", "prompt_ids")
        if len(prompt) >= context:
            raise BadRequest(f"{len(prompt)} tokens leave no room in a context of {context}", "prompt_ids")
        delivered = len(generation.delivered_ids)
        return min(generation.max_tokens - delivered, context - len(prompt) - delivered)

    def _chunk(self, said: Said, generation: Generation, first: bool) -> Chunk:
        if said.id < 0:
            raise EngineLost("the engine is done, and said no finish")
        logprobs = None
        if generation.sampling.logprobs >= 0:
            logprobs = [TokenLogprob(said.id, said.logprob, ((said.id, said.logprob),))]
        return Chunk([said.id], logprobs=logprobs, cached_tokens=said.cached if first else 0)

    async def _ask(self, do: str) -> Said:
        try:
            async with asyncio.timeout(self.look_s):
                reader, writer = await self._dial(EngineLost)
                try:
                    writer.write(line(do=do))
                    return await hear(reader)
                finally:
                    writer.close()
        except TimeoutError:
            raise EngineLost(f"the engine said nothing in {self.look_s:g} s") from None

    async def _dial(
        self, fault: type[EngineLost] | type[EngineRefused]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self._closed:
            raise fault("the adapter is closed")
        try:
            return await asyncio.open_connection("127.0.0.1", self._port)
        except OSError as error:
            raise fault(f"nobody answers at port {self._port}: {error.strerror}") from error


def line(**words: object) -> bytes:
    return msgspec.json.encode(words) + b"\n"


async def hear(reader: asyncio.StreamReader) -> Said:
    """The next line, where it is one of an engine that is well."""
    try:
        text = await reader.readline()
        if not text.endswith(b"\n"):
            raise EngineLost("the engine hung up midway")
        said = msgspec.json.decode(text, type=Said)
    except (OSError, ValueError, msgspec.DecodeError) as error:
        raise EngineLost(f"the connection to the engine broke: {error}") from error
    if said.refused:
        raise EngineRefused(f"the engine takes no more: {said.refused}")
    if said.wrong:
        raise BadRequest(f"the engine says: {said.wrong}")
    if said.error:
        raise EngineLost(f"the engine says: {said.error}")
    return said
