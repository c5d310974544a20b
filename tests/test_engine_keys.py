"""Which key an engine that runs already is shown: its own, and never that of another owner's."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from holdfast.app.foreign import Order, opened
from holdfast.domain.settings import BadSettings
from holdfast.domain.settings_text import read
from holdfast.host.clock import MonotonicClock
from holdfast.sim.foreign_model import ForeignScript
from holdfast.sim.vllm_server import VllmServer
from holdfast.store.engine_key import read_key
from holdfast.store.engine_record import EngineRecordFile
from holdfast.store.settings_file import with_model

CLOCK = MonotonicClock()


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
            order = Order(
                settings=settings,
                number=number,
                log=tmp_path / "log",
                records=EngineRecordFile(tmp_path / "record"),
                room=tmp_path / "room",
            )
            async with AsyncExitStack() as after:
                await after.enter_async_context(opened(order, CLOCK, lambda stage: None))
        for one in servers:
            await one.door.close()

    asyncio.run(run())
    assert set(seen) == {("of-a", "Bearer of-a"), ("of-b", "Bearer of-b")}
