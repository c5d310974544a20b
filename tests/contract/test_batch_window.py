"""The batch window before a real server: answers that nobody streams are begun together, and nobody else waits.

The window is half a minute where a test wants to see what ends it early, so a failure is a time-out and not a matter of speed.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec import structs
from stages import SCRIPT, SLOTS, ScriptedScene, listen_to, scripted_scene
from test_replica_server import Caller, submit

from holdfast.domain.request import Finish, Generation
from holdfast.domain.wire import Abort, Failed, Hello, Ping, Pong, Submit, Tokens, Welcome
from holdfast.sim.scripted import scripted_answer

LONG_S = 30.0


def whole(stream: int, max_tokens: int = 3) -> Submit:
    return structs.replace(submit(stream, max_tokens), whole=True)


def play(folder: Path, window_s: float, story: Callable[[ScriptedScene], Awaitable[None]]) -> None:
    async def run() -> None:
        async with scripted_scene(folder, batch_window_s=window_s) as scene, asyncio.timeout(LONG_S / 2):
            await story(scene)

    asyncio.run(run())


async def at(scene: ScriptedScene, *frames: Submit) -> Caller:
    """A caller whose frames have all arrived, since a ping behind them is answered. It checks that the ping is."""
    caller = await Caller.at(scene.address, Hello(), *frames, Ping(1))
    assert isinstance(await caller.hear(), Welcome)
    assert isinstance(await caller.hear(), Pong)
    return caller


def waiting(scene: ScriptedScene) -> int:
    """Attempts that the core has. This one seats them before its next step, pearl's queues them."""
    load = scene.core.load()
    return load.running + load.queued


async def streams(caller: Caller) -> list[int]:
    frame = await caller.hear()
    assert isinstance(frame, Tokens)
    return [item.stream for item in frame.items]


def test_an_idle_replica_begins_all_that_came_within_the_window_in_one_step(folder):
    async def story(scene: ScriptedScene) -> None:
        caller = await at(scene, whole(1), whole(2))
        assert scene.core.load().step == 0
        caller.say(whole(3))
        assert await streams(caller) == [1, 2, 3]

    play(folder, 0.1, story)


def test_a_stream_ends_the_wait_of_all(folder):
    async def story(scene: ScriptedScene) -> None:
        caller = await at(scene, whole(1), whole(2))
        assert scene.core.load().step == 0
        caller.say(submit(3, 3))
        assert await streams(caller) == [1, 2, 3]

    play(folder, LONG_S, story)


def test_a_stream_before_an_idle_replica_never_waits(folder):
    async def story(scene: ScriptedScene) -> None:
        asked = Generation(id="g", prompt_ids=[20, 21, 22], max_tokens=30, seed=5)
        heard = await listen_to(scene.line, asked)
        assert (heard.ids, heard.finish) == (scripted_answer([20, 21, 22], 5, 30, SCRIPT), Finish.LENGTH)

    play(folder, LONG_S, story)


def test_a_full_house_ends_the_wait(folder):
    async def story(scene: ScriptedScene) -> None:
        caller = await at(scene, *(whole(stream) for stream in range(1, SLOTS)))
        assert scene.core.load().step == 0
        caller.say(whole(SLOTS))
        assert await streams(caller) == list(range(1, SLOTS + 1))

    play(folder, LONG_S, story)


def test_whoever_comes_while_the_replica_runs_joins_at_its_next_step(folder):
    async def story(scene: ScriptedScene) -> None:
        caller = await at(scene, submit(1, 400))
        caller.say(whole(2))
        while await streams(caller) != [1, 2]:
            pass
        assert scene.core.load().running == 2

    play(folder, LONG_S, story)


def test_a_drain_ends_the_wait_and_the_answers_come(folder):
    async def story(scene: ScriptedScene) -> None:
        caller = await at(scene, whole(1))
        await scene.drain()
        frames = await caller.hear_all()
        assert [item.stream for frame in frames if isinstance(frame, Tokens) for item in frame.items] == [1, 1, 1]
        assert not [frame for frame in frames if isinstance(frame, Failed)]

    play(folder, LONG_S, story)


def test_an_abort_leaves_the_others_their_window(folder):
    async def story(scene: ScriptedScene) -> None:
        caller = await at(scene, whole(1), whole(2))
        caller.say(Abort(1), Ping(2))
        assert isinstance(await caller.hear(), Pong)
        assert waiting(scene) == 1
        caller.say(Abort(2), Ping(3))
        assert isinstance(await caller.hear(), Pong)
        assert (waiting(scene), scene.core.load().step) == (0, 0)
        caller.say(submit(3, 1))
        assert await streams(caller) == [3]

    play(folder, LONG_S, story)


def test_a_line_says_which_answers_nobody_reads_as_they_come(folder):
    async def story(scene: ScriptedScene) -> None:
        asked = Generation(id="g", prompt_ids=[20, 21, 22], max_tokens=3, seed=5, whole=True)
        heard = asyncio.ensure_future(listen_to(scene.line, asked))
        await scene.line.probe()  # it goes the same way, behind the answer
        assert (waiting(scene), scene.core.load().step) == (1, 0)
        assert isinstance(await (await at(scene, submit(1, 3))).hear(), Tokens)
        assert (await heard).ids == scripted_answer([20, 21, 22], 5, 3, SCRIPT)

    play(folder, LONG_S, story)
