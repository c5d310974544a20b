"""The replica's server before gateways that misbehave: whatever one of them does, the others notice nothing."""

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from msgspec import structs
from prometheus_client.parser import text_string_to_metric_families
from stages import CLOCK, SCRIPT, ScriptedScene, listen_to, scripted_scene

from holdfast.domain.address import TcpAddress, UnixAddress
from holdfast.domain.request import Finish, Generation, Sampling
from holdfast.domain.wire import (
    FRAME_BYTES_MAX,
    Abort,
    Cutter,
    Downward,
    Failed,
    Hello,
    Ping,
    Pong,
    Submit,
    Tokens,
    Upward,
    Welcome,
    downward,
    encode,
)
from holdfast.engine.embedded import dial
from holdfast.pearl.listen import claim
from holdfast.pearl.server import ReplicaServer, ServerOptions
from holdfast.sim.scripted import Poison, Poisoned, Script, ScriptedCore, scripted_answer

ASKED = Generation(id="g", prompt_ids=[20, 21, 22], max_tokens=30, seed=5)
SLOW = structs.replace(SCRIPT, token_s=0.0, context_tokens_max=100_000, tokens_per_step=1000)


def submit(stream: int, max_tokens: int = 30) -> Submit:
    return Submit(stream, [20, 21, 22], [], Sampling(), max_tokens, 5, ())


class Caller:
    """A gateway that says whatever it is told to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self._cutter = Cutter()
        self._frames: list[Downward] = []

    @classmethod
    async def at(cls, address: str, *frames: Upward) -> "Caller":
        caller = cls(*await asyncio.open_unix_connection(address.removeprefix("unix:")))
        caller.say(*frames)
        return caller

    def say(self, *frames: Upward) -> None:
        self.writer.write(b"".join(encode(frame) for frame in frames))

    async def hear(self) -> Downward | None:
        """The next frame, or None once the replica has hung up."""
        while not self._frames:
            try:
                data = await self.reader.read(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._frames += [downward(body) for body in self._cutter.feed(data)]
        return self._frames.pop(0)

    async def hear_all(self) -> list[Downward]:
        heard = []
        while (frame := await self.hear()) is not None:
            heard.append(frame)
        return heard


def on_scripted(folder: Path, story: Callable[[ScriptedScene], Awaitable[None]], **options: object) -> None:
    async def run() -> None:
        async with scripted_scene(folder, **options) as scene:
            await story(scene)

    asyncio.run(run())


@pytest.mark.parametrize(
    "data",
    [
        b"\x07\x00\x00\x00garbage",
        (FRAME_BYTES_MAX + 1).to_bytes(4, "little"),
        encode(submit(1)),
        encode(Hello(version=99)),
        encode(Hello()) + encode(Hello()),
        encode(Hello()) + encode(submit(1)) + encode(submit(1)),
        encode(Hello()) + encode(Tokens(1, [])),
        b"GET " + b"x" * 20_000,
    ],
    ids=[
        "noise",
        "endless frame",
        "no Hello",
        "version",
        "two Hellos",
        "stream twice",
        "downward word",
        "endless head",
    ],
)
def test_garbage_ends_its_own_connection_only(folder: Path, data: bytes) -> None:
    async def story(scene: ScriptedScene) -> None:
        reading = asyncio.ensure_future(listen_to(scene.line, structs.replace(ASKED, max_tokens=200)))
        caller = await Caller.at(scene.address)
        caller.writer.write(data)
        assert not [frame for frame in await caller.hear_all() if isinstance(frame, Failed)]
        assert (await reading).ids == scripted_answer([20, 21, 22], 5, 200, SCRIPT)
        assert scene.server.tally.connections_cut == 1
        assert (await scene.line.probe()).load.running == 0

    on_scripted(folder, story)


def test_frames_may_arrive_in_any_pieces(folder: Path) -> None:
    async def story(scene: ScriptedScene) -> None:
        caller = await Caller.at(scene.address)
        for byte in encode(Hello()) + encode(submit(1, 3)) + encode(Ping(9)):
            caller.writer.write(bytes([byte]))
            await caller.writer.drain()
        heard = [await caller.hear() for _ in range(5)]
        assert isinstance(heard[0], Welcome)
        assert [frame.nonce for frame in heard if isinstance(frame, Pong)] == [9]
        items = [frame.items[0] for frame in heard if isinstance(frame, Tokens)]
        assert [id for item in items for id in item.ids] == scripted_answer([20, 21, 22], 5, 3, SCRIPT)
        assert items[-1].finish is Finish.LENGTH

    on_scripted(folder, story)


def test_one_step_is_one_frame_for_all_its_streams(folder: Path) -> None:
    async def story(scene: ScriptedScene) -> None:
        caller = await Caller.at(scene.address, Hello(), submit(1, 5), submit(2, 5), submit(3, 5))
        assert isinstance(await caller.hear(), Welcome)
        for step in range(1, 6):
            frame = await caller.hear()
            assert isinstance(frame, Tokens)
            assert frame.step == step
            assert [item.stream for item in frame.items] == [1, 2, 3]

    on_scripted(folder, story)


def test_a_hang_up_aborts_its_attempts(folder: Path) -> None:
    async def story(scene: ScriptedScene) -> None:
        caller = await Caller.at(scene.address, Hello(), submit(1, 400), submit(2, 400))
        await caller.hear()
        await caller.hear()
        assert scene.core.load().running == 2
        caller.writer.close()
        while scene.core.load().running:
            await scene.line.probe()
        assert scene.server.tally.aborted == 2

    on_scripted(folder, story)


def test_an_abort_of_an_unknown_stream_is_nothing(folder: Path) -> None:
    async def story(scene: ScriptedScene) -> None:
        caller = await Caller.at(scene.address, Hello(), Abort(77), Ping(1))
        assert isinstance(await caller.hear(), Welcome)
        assert isinstance(await caller.hear(), Pong)

    on_scripted(folder, story)


def test_streams_of_one_connection_are_bounded(folder: Path) -> None:
    async def story(scene: ScriptedScene) -> None:
        caller = await Caller.at(scene.address, Hello(), submit(1, 400), submit(2, 400), submit(3, 400))
        assert isinstance(await caller.hear(), Welcome)
        assert await caller.hear() == Failed(3, "refused", "this connection has 2 streams already")

    on_scripted(folder, story, streams_max=2)


def test_connections_are_bounded(folder: Path) -> None:
    async def story(scene: ScriptedScene) -> None:
        assert await (await Caller.at(scene.address, Hello())).hear() is None
        assert (await scene.line.probe()).ready

    on_scripted(folder, story, connections_max=1)


def test_who_does_not_read_is_cut_and_memory_stays_bounded(folder: Path) -> None:
    async def story(scene: ScriptedScene) -> None:
        caller = await Caller.at(scene.address, Hello(), *(submit(n, 90_000) for n in range(1, 5)))
        caller.writer.transport.pause_reading()
        while not scene.server.tally.connections_cut:
            await scene.line.probe()
        assert scene.server.tally.aborted == 4
        assert (await listen_to(scene.line, ASKED)).finish is Finish.LENGTH
        caller.writer.transport.abort()

    on_scripted(folder, story, script=SLOW, unsent_bytes_max=100_000)


def test_a_stranger_that_says_nothing_is_shown_out(folder: Path) -> None:
    async def story(scene: ScriptedScene) -> None:
        caller = await Caller.at(scene.address)
        assert await caller.hear() is None
        assert (await scene.line.probe()).ready

    on_scripted(folder, story, hello_s=0.0)


async def get(address: str, target: str) -> tuple[str, str]:
    """The status line and the body of a plain HTTP GET."""
    caller = await Caller.at(address)
    caller.writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\n".encode())
    caller.writer.write(b"\r\n")
    head, _, body = (await caller.reader.read()).decode().partition("\r\n\r\n")
    assert f"Content-Length: {len(body.encode())}" in head
    return head.splitlines()[0], body


def test_metrics_count_what_happened(folder: Path) -> None:
    async def story(scene: ScriptedScene) -> None:
        await listen_to(scene.line, ASKED)
        await listen_to(scene.line, ASKED)
        status, body = await get(scene.address, "/metrics")
        assert status == "HTTP/1.1 200 OK"
        values = {
            sample.name.removeprefix("holdfast_replica_"): sample.value
            for family in text_string_to_metric_families(body)
            for sample in family.samples
        }
        assert values["generated_tokens_total"] == 60
        assert values["prefill_tokens_total"] == 3 + 1
        assert values["cached_prompt_tokens_total"] == 2
        assert (values["accepted_total"], values["finished_total"], values["aborted_total"]) == (2, 2, 0)
        assert (values["up"], values["draining"], values["running"], values["connections"]) == (1, 0, 0, 1)
        assert values["steps_total"] == 60

    on_scripted(folder, story)


def test_health_turns_to_503_when_it_drains(folder: Path) -> None:
    async def story(scene: ScriptedScene) -> None:
        status, body = await get(scene.address, "/health?verbose")
        told = json.loads(body)
        assert status == "HTTP/1.1 200 OK"
        assert (told["ready"], told["model"], told["boot"]) == (True, "scripted", "b1")
        reading = asyncio.ensure_future(listen_to(scene.line, structs.replace(ASKED, max_tokens=400)))
        await scene.line.probe()
        scene.server.drain(30.0)
        status, body = await get(scene.address, "/health")
        assert status == "HTTP/1.1 503 Service Unavailable"
        assert json.loads(body)["why"] == "draining"
        assert len((await reading).ids) == 400

    on_scripted(folder, story)


def test_an_unknown_page_is_404(folder: Path) -> None:
    async def story(scene: ScriptedScene) -> None:
        assert (await get(scene.address, "/"))[0] == "HTTP/1.1 404 Not Found"

    on_scripted(folder, story)


def test_a_drain_is_announced_and_its_end_fails_what_is_left(folder: Path) -> None:
    async def story(scene: ScriptedScene) -> None:
        scene.befall("freeze")
        caller = await Caller.at(scene.address, Hello(), submit(1))
        assert isinstance(await caller.hear(), Welcome)
        scene.server.drain(0.0)
        heard = await caller.hear_all()
        assert isinstance(heard[0], Pong)
        assert heard[0].nonce == 0
        assert heard[0].load.draining
        assert isinstance(heard[1], Failed)
        assert (heard[1].kind, heard[1].why) == ("lost", "r has left: its drain time is over")

    on_scripted(folder, story)


def test_a_core_that_raises_ends_the_server_and_every_connection(folder: Path) -> None:
    async def run() -> None:
        core = ScriptedCore(Script(poisons=(Poison(66),)))
        server = ReplicaServer(core, CLOCK, ServerOptions(replica="r", boot="b", context_tokens_max=100))
        serving = asyncio.create_task(server.serve(claim(UnixAddress(f"{folder}/r.sock"))))
        line = await dial(f"unix:{folder}/r.sock", CLOCK, 5.0)
        outcome = (
            await asyncio.gather(listen_to(line, structs.replace(ASKED, prompt_ids=[20, 66])), return_exceptions=True)
        )[0]
        assert "closed the connection" in str(outcome)
        with pytest.raises(Poisoned):
            await serving

    asyncio.run(run())


def test_a_stale_socket_file_is_replaced(folder: Path) -> None:
    address = UnixAddress(f"{folder}/s.sock")
    claim(address).close()
    with claim(address) as listener:
        assert Path(address.path).stat().st_mode & 0o777 == 0o600
        assert listener.getsockname() == address.path


def test_a_socket_that_somebody_answers_on_is_left_alone(folder: Path) -> None:
    address = UnixAddress(f"{folder}/s.sock")
    with claim(address) as held:
        with pytest.raises(OSError, match=r"address in use by process \d+"):
            claim(address)
        with socket.socket(socket.AF_UNIX) as visitor:
            visitor.connect(address.path)
        assert held.accept()


def test_a_file_that_is_no_socket_is_left_alone(folder: Path) -> None:
    path = folder / "precious"
    path.write_text("data")
    with pytest.raises(OSError, match="no socket"):
        claim(UnixAddress(str(path)))
    assert path.read_text() == "data"


def test_a_taken_port_is_an_error(folder: Path) -> None:
    with claim(TcpAddress("127.0.0.1", 0)) as held, pytest.raises(OSError, match=r"can't listen at 127\.0\.0\.1"):
        claim(TcpAddress("127.0.0.1", held.getsockname()[1]))
