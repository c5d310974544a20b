"""Which key an engine that runs already is shown, and what of its complaints goes no further: where it runs, and its key."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from holdfast.app.foreign import Order, Word, opened
from holdfast.domain.ports import Work
from holdfast.domain.request import Sampling
from holdfast.domain.settings import BadSettings
from holdfast.domain.settings_text import read
from holdfast.host.clock import MonotonicClock
from holdfast.sim.foreign_model import ForeignScript
from holdfast.sim.vllm_server import VllmServer
from holdfast.store.engine_key import read_key
from holdfast.store.engine_record import EngineRecordFile
from holdfast.store.settings_file import with_model

CLOCK = MonotonicClock()
WORD = Word(stage=len, placed=len, away=len)  # nobody listens


def order_of(folder, settings, number=0):
    return Order(
        settings=settings,
        number=number,
        log=folder / "engine.log",
        records=EngineRecordFile(folder / "record"),
        room=folder / "room",
    )


def outside(keys, url="http://a:1, http://b:1, http://c:1"):
    return read(f'[replica]\nengine = "vllm"\nurl = "{url}"\n[engine]\n{keys}').engine


def test_each_url_has_its_own_key_and_the_others_the_common_one(tmp_path):
    file = tmp_path / "key"
    file.write_text("from-file\n")
    engine = outside(f'key = "common"\n[engine.keys]\n"http://b:1" = "file:{file}"\n"http://c:1" = ""')
    assert [read_key(f"http://{host}:1", engine) for host in "abc"] == ["common", "from-file", ""]


@pytest.mark.parametrize("held", [None, b"", b" \n", b"two\nlines\n", b"\xff\xfe", b"x" * 70_000])
def test_a_key_file_without_a_key_is_named_and_nothing_of_it_is_shown(tmp_path, held):
    file = tmp_path / "key"
    if held is not None:
        file.write_bytes(held)
    with pytest.raises(BadSettings) as refused:
        read_key("http://b:1", outside(f'keys = {{"http://b:1" = "file:{file}"}}'))
    assert str(refused.value).startswith(f"[engine] keys: the key for http://b:1 can't be read from {file}: ")
    assert "lines" not in str(refused.value)


def test_two_owners_engines_are_each_opened_with_the_key_of_their_own(tmp_path):
    seen: list[tuple[str, str]] = []

    class Noting(VllmServer):
        def _may(self, asked):
            seen.append((self.model.script.key, asked.headers.get("authorization", "")))
            return super()._may(asked)

    async def run() -> None:
        servers = [Noting(ForeignScript(key=key), CLOCK) for key in ("of-a", "of-b")]
        urls = [await one.door.open() for one in servers]
        (tmp_path / "b").write_text("of-b\n")
        text = f'[replica]\nengine = "vllm"\nurl = "{", ".join(urls)}"\n[engine]\nkey = "of-a"\n'
        settings = with_model(read(text + f'keys = {{"{urls[1]}" = "file:{tmp_path}/b"}}'))
        for number in (0, 1):
            order = order_of(tmp_path, settings, number)
            async with AsyncExitStack() as after:
                await after.enter_async_context(opened(order, CLOCK, WORD))
        for one in servers:
            await one.door.close()

    asyncio.run(run())
    assert set(seen) == {("of-a", "Bearer of-a"), ("of-b", "Bearer of-b")}


def test_an_engine_that_comes_to_refuse_its_key_ends_its_replica_with_a_sentence_without_it(tmp_path, capsys):
    """Such a sentence is in the replica's log, and in status as what it died of."""

    async def run() -> None:
        server = VllmServer(ForeignScript(key="sk-1"), CLOCK)
        url = await server.door.open()
        settings = with_model(read(f'[replica]\nengine = "vllm"\nurl = "{url}"\n[engine]\nkey = "sk-1"'))
        async with opened(order_of(tmp_path, settings), CLOCK, WORD) as engine:
            engine.core.end(f"{url} answered 401: Incorrect API key provided: sk-1.")
        await server.door.close()

    asyncio.run(run())
    assert capsys.readouterr().err.endswith(" answered 401: Incorrect API key provided: ....\n")


class Complaining(VllmServer):
    """Refuses with a sentence that says all that it knows."""

    complaint = ""

    async def _completions(self, asked, reply):
        if self.complaint:
            reply.json(400, {"error": {"message": self.complaint, "param": "prompt", "code": 400}})
        else:
            await super()._completions(asked, reply)


@pytest.mark.parametrize("whole", [False, True])
def test_who_asked_hears_the_engines_sentence_and_the_log_where_it_came_from(tmp_path, whole):
    """Without `log_whole` the sentence is not kept: it may quote a prompt."""

    async def run() -> None:
        server = Complaining(ForeignScript(key="sk-1"), CLOCK)
        url = await server.door.open()
        more = f'key = "sk-1"\nlog_whole = {str(whole).lower()}'
        settings = with_model(read(f'[replica]\nengine = "vllm"\nurl = "{url}"\n[engine]\n{more}'))
        async with opened(order_of(tmp_path, settings), CLOCK, WORD) as engine:
            server.complaint = f"top_k of secret words is wrong, see {url}/docs, not {url[7:]}, by sk-1"
            work = Work(prompt_ids=[5], delivered_ids=[], sampling=Sampling(), max_tokens=4, seed=1, stop_ids=())
            engine.core.submit(1, work)
            failed = []
            while not failed:
                await CLOCK.sleep(0.01)
                failed = [one for one in engine.core.step() if one.fault]
        assert failed[0].fault == (
            "the engine answered 400: top_k of secret words is wrong, see the engine/docs, not ..., by ..."
        )
        assert failed[0].param == "prompt"
        await server.door.close()
        log = (tmp_path / "engine.log").read_text()
        said = f"top_k of secret words is wrong, see {url}/docs, not {url[7:]}, by ..."
        assert f"an attempt failed: {url} answered 400: {said if whole else '...'}\n" in log
        assert "sk-1" not in log
        assert ("secret" in log) is whole

    asyncio.run(run())
