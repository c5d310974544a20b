"""The embedded engine's adapter where things go wrong: a scripted core that misbehaves, and a replica that breaks the
protocol."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest
from msgspec import structs
from stages import CLOCK, SCRIPT, Heard, ScriptedScene, listen_to, scripted_scene

from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused
from holdfast.domain.release import Release
from holdfast.domain.replica import Load
from holdfast.domain.request import Finish, Generation
from holdfast.domain.wire import (
    FRAME_BYTES_MAX,
    VERSION,
    Abort,
    Cutter,
    Failed,
    Hello,
    Item,
    Ping,
    Pong,
    Submit,
    Tokens,
    Upward,
    Welcome,
    encode,
    upward,
)
from holdfast.engine.embedded import EmbeddedEngine, dial
from holdfast.sim.scripted import scripted_answer

ASKED = Generation(id="g", prompt_ids=[20, 21, 22], max_tokens=50, seed=5)
WHOLE = scripted_answer(ASKED.prompt_ids, ASKED.seed, 50, SCRIPT)
WELCOME = Welcome(VERSION, "b1", 1, Release(model="m", engine="hostile", digest="0" * 64), Load(), 100)


def on_scripted(folder: Path, story: Callable[[ScriptedScene], Awaitable[None]], **limits: int) -> None:
    async def run() -> None:
        async with scripted_scene(folder, **limits) as scene:
            await story(scene)

    asyncio.run(run())


# a core that misbehaves


def test_the_answer_is_the_scripted_one(folder: Path) -> None:
    async def story(scene: ScriptedScene) -> None:
        assert (await listen_to(scene.line, ASKED)).ids == WHOLE

    on_scripted(folder, story)


def test_a_fault_midway_is_a_lost_engine_after_what_was_made(folder: Path) -> None:
    async def story(scene: ScriptedScene) -> None:
        scene.befall("fault", 7)
        heard = Heard()
        with pytest.raises(EngineLost, match="told to fail after 7 tokens"):
            await listen_to(scene.line, ASKED, heard)
        assert heard.ids == WHOLE[:7]
        assert (await listen_to(scene.line, structs.replace(ASKED, delivered_ids=heard.ids))).ids == WHOLE[7:]

    on_scripted(folder, story)


def test_an_answer_that_the_core_forgets_is_lost_and_never_hangs(folder: Path) -> None:
    async def story(scene: ScriptedScene) -> None:
        scene.befall("forget", 3)
        heard = Heard()
        with pytest.raises(EngineLost, match="without a finish"):
            await listen_to(scene.line, ASKED, heard)
        assert heard.ids == WHOLE[:3]

    on_scripted(folder, story)


def test_a_refusal_and_a_bad_request_keep_their_words(folder: Path) -> None:
    async def story(scene: ScriptedScene) -> None:
        scene.befall("refuse")
        with pytest.raises(EngineRefused, match="told to refuse"):
            await listen_to(scene.line, ASKED)
        with pytest.raises(BadRequest, match="leave no room in a context of 512") as told:
            await listen_to(scene.line, structs.replace(ASKED, prompt_ids=[20] * 600))
        assert (told.value.param, told.value.code) == ("prompt_ids", "context_length_exceeded")

    on_scripted(folder, story)


def test_a_frozen_core_says_nothing_but_its_loop_answers_and_shows_no_step(folder: Path) -> None:
    async def story(scene: ScriptedScene) -> None:
        scene.befall("freeze", 4)
        async with aclosing(scene.line.generate(ASKED)) as chunks:
            ids: list[int] = []
            while len(ids) < 4:
                ids += (await anext(chunks)).ids
            while not scene.core.frozen:
                await scene.line.probe()
            steps = [(await scene.line.probe()).load.step for _ in range(5)]
            assert len(set(steps)) == 1
            scene.core.frozen = False
            async for chunk in chunks:
                ids += chunk.ids
        assert ids == WHOLE

    on_scripted(folder, story)


# a replica that breaks the protocol

Talk = Callable[["Visitor"], Awaitable[None]]


class Visitor:
    """One connection, seen from a hostile replica."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._cutter = Cutter()
        self._frames: list[Upward] = []

    async def hear(self) -> Upward:
        while not self._frames:
            data = await self.reader.read(65536)
            if not data:
                raise ConnectionResetError
            self._frames += [upward(body) for body in self._cutter.feed(data)]
        return self._frames.pop(0)

    def say(self, *frames: Welcome | Tokens | Failed | Pong) -> None:
        self.writer.write(b"".join(encode(frame) for frame in frames))

    async def submitted(self) -> Submit:
        frame = await self.hear()
        assert isinstance(frame, Submit)
        return frame


@asynccontextmanager
async def hostile(folder: Path, talk: Talk, welcome: bool = True) -> AsyncIterator[str]:
    """A replica that shakes hands and then does as `talk` says; its failures fail the test."""
    failures: list[BaseException] = []

    async def visit(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visitor = Visitor(reader, writer)
        try:
            if welcome:
                assert isinstance(await visitor.hear(), Hello)
                visitor.say(WELCOME)
            await talk(visitor)
        except ConnectionResetError:
            pass
        except AssertionError as failure:
            failures.append(failure)
        finally:
            writer.close()

    server = await asyncio.start_unix_server(visit, f"{folder}/h.sock")
    try:
        yield f"unix:{folder}/h.sock"
    finally:
        server.close()
        assert failures == []


def against(folder: Path, talk: Talk, story: Callable[[EmbeddedEngine], Awaitable[None]]) -> None:
    async def run() -> None:
        async with hostile(folder, talk) as address:
            line = await dial(address, CLOCK, 5.0)
            try:
                await story(line)
            finally:
                await line.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x05\x00\x00\x00hello", "sent garbage"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "over the limit"),
        ((FRAME_BYTES_MAX + 1).to_bytes(4, "little"), "over the limit"),
        (encode(Hello()), "sent garbage"),
        (encode(WELCOME), "welcomed us twice"),
        (b"\x09\x00\x00\x00ab", "closed the connection"),
        (b"", "closed the connection"),
    ],
    ids=["noise", "http", "endless frame", "upward word", "second welcome", "half a frame", "end without a finish"],
)
def test_nonsense_is_a_lost_engine(folder: Path, data: bytes, why: str) -> None:
    async def talk(visitor: Visitor) -> None:
        stream = (await visitor.submitted()).stream
        visitor.say(Tokens(1, [Item(stream, [7])]))
        visitor.writer.write(data)

    async def story(line: EmbeddedEngine) -> None:
        heard = Heard()
        with pytest.raises(EngineLost, match=why):
            await listen_to(line, ASKED, heard)
        assert heard.ids == [7]
        assert why in line.gone

    against(folder, talk, story)


def test_a_reset_midway_is_a_lost_engine(folder: Path) -> None:
    async def talk(visitor: Visitor) -> None:
        await visitor.submitted()
        visitor.writer.transport.abort()

    async def story(line: EmbeddedEngine) -> None:
        with pytest.raises(EngineLost, match="connection"):
            await listen_to(line, ASKED)

    against(folder, talk, story)


def test_tokens_that_arrive_after_an_abort_reach_nobody(folder: Path) -> None:
    async def talk(visitor: Visitor) -> None:
        left = await visitor.submitted()
        visitor.say(Tokens(1, [Item(left.stream, [1])]))
        assert await visitor.hear() == Abort(left.stream)
        again = await visitor.submitted()
        assert again.stream != left.stream
        late = Item(left.stream, [666], Finish.LENGTH)
        visitor.say(Tokens(2, [late, Item(again.stream, [2])]), Failed(left.stream, "lost", "late"))
        visitor.say(Tokens(3, [Item(again.stream, [3], Finish.LENGTH), late]))
        await visitor.hear()

    async def story(line: EmbeddedEngine) -> None:
        async with aclosing(line.generate(ASKED)) as chunks:
            assert (await anext(chunks)).ids == [1]
        assert (await listen_to(line, ASKED)).ids == [2, 3]

    against(folder, talk, story)


def test_a_refusal_after_tokens_is_a_loss(folder: Path) -> None:
    async def talk(visitor: Visitor) -> None:
        stream = (await visitor.submitted()).stream
        visitor.say(Tokens(1, [Item(stream, [7])]), Failed(stream, "refused", "changed my mind"))
        await visitor.hear()

    async def story(line: EmbeddedEngine) -> None:
        with pytest.raises(EngineLost, match="changed my mind"):
            await listen_to(line, ASKED)

    against(folder, talk, story)


def test_a_probe_without_an_answer_is_a_lost_engine(folder: Path) -> None:
    async def talk(visitor: Visitor) -> None:
        assert isinstance(await visitor.hear(), Ping)
        await visitor.hear()

    async def story(line: EmbeddedEngine) -> None:
        impatient = line
        impatient._probe_timeout_s = 0.0
        with pytest.raises(EngineLost, match="did not answer a ping"):
            await impatient.probe()

    against(folder, talk, story)


def test_an_unasked_pong_tells_that_the_replica_leaves(folder: Path) -> None:
    async def talk(visitor: Visitor) -> None:
        assert isinstance(await visitor.submitted(), Submit)
        visitor.say(Pong(0, Load(draining=True)))
        await visitor.hear()

    async def story(line: EmbeddedEngine) -> None:
        told = asyncio.get_running_loop().create_future()
        line.on_gap = told.set_result
        async with aclosing(line.generate(ASKED)) as chunks:
            first = asyncio.ensure_future(anext(chunks))
            await told
            await asyncio.sleep(0)
            assert line.last_load.draining
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)

    against(folder, talk, story)


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (b"", "closed the connection"),
        (b"220 smtp.example ESMTP\r\n", "over the limit"),
        (encode(Pong(1, Load())), "said Pong before Welcome"),
        (encode(structs.replace(WELCOME, version=99)), "speaks version 99"),
    ],
    ids=["hangs up", "another protocol", "no manners", "another version"],
)
def test_a_handshake_that_fails_says_why(folder: Path, answer: bytes, why: str) -> None:
    async def talk(visitor: Visitor) -> None:
        await visitor.hear()
        visitor.writer.write(answer)
        if answer:
            await visitor.hear()

    async def run() -> None:
        async with hostile(folder, talk, welcome=False) as address:
            with pytest.raises(EngineLost, match=why):
                await dial(address, CLOCK, 5.0)

    asyncio.run(run())


def test_a_replica_that_never_welcomes_is_given_up(folder: Path) -> None:
    async def talk(visitor: Visitor) -> None:
        await visitor.hear()
        await visitor.hear()

    async def run() -> None:
        async with hostile(folder, talk, welcome=False) as address:
            with pytest.raises(EngineLost, match="did not say Welcome"):
                await dial(address, CLOCK, 0.01)

    asyncio.run(run())


def test_an_address_where_nobody_listens_is_a_lost_engine(folder: Path) -> None:
    with pytest.raises(EngineLost, match="nobody answers at unix:"):
        asyncio.run(dial(f"unix:{folder}/none.sock", CLOCK, 5.0))


def test_a_hundred_submits_are_one_write(folder: Path) -> None:
    async def run() -> None:
        sizes: list[int] = []

        async def talk(visitor: Visitor) -> None:
            count = 0
            while count < 100:
                data = await visitor.reader.read(1 << 20)
                bodies = list(visitor._cutter.feed(data))
                sizes.append(len(bodies))
                count += len(bodies)
                for body in bodies:
                    frame = upward(body)
                    assert isinstance(frame, Submit)
                    visitor.say(Tokens(1, [Item(frame.stream, [1], Finish.LENGTH)]))

        async with hostile(folder, talk) as address:
            line = await dial(address, CLOCK, 5.0)
            await asyncio.gather(*(listen_to(line, structs.replace(ASKED, id=str(n))) for n in range(100)))
            await line.close()
        assert len(sizes) <= 3, sizes

    asyncio.run(run())
