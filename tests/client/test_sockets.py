"""The transports over real sockets, cut at every byte; and the openai SDK on top of them."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import httpx
import pytest
from desk import ALL, SAID, WHOLE, Asked, Desk, Stand, told

from holdfast.client import AsyncOpenAI, AsyncResumingTransport, OpenAI, Patience, ResumingTransport, sdk

STREAMED = {"model": "m", "messages": [], "stream": True}
WHOLLY = {"model": "m", "messages": []}
QUICK = Patience(wait_first_s=0.0002)


@pytest.fixture
def stand() -> Iterator[Stand]:
    with Stand(Desk()) as one:
        yield one


def lengths(body: dict[str, object]) -> range:
    """Every number of bytes that a reply of the desk may be cut to."""
    asked = Asked("POST", "/", {}, httpx.Request("POST", "http://d", json=body).content)
    return range(len(Desk().reply(asked).raw()))


def test_a_stream_cut_at_every_byte_is_exact(stand: Stand) -> None:
    with httpx.Client(transport=ResumingTransport(patience=QUICK)) as client:
        for cut in lengths(STREAMED):
            stand.cuts = [cut]
            answer = client.post(f"{stand.url}/chat/completions", json=STREAMED)
            assert answer.content == told(ALL), f"cut after {cut} bytes"


def test_a_stream_cut_anywhere_is_exact_for_asyncio_too(stand: Stand) -> None:
    async def story() -> None:
        async with httpx.AsyncClient(transport=AsyncResumingTransport(patience=QUICK)) as client:
            for cut in lengths(STREAMED)[::7]:
                stand.cuts = [cut]
                answer = await client.post(f"{stand.url}/chat/completions", json=STREAMED)
                assert answer.content == told(ALL), f"cut after {cut} bytes"

    asyncio.run(story())


def test_a_whole_answer_cut_at_every_byte_is_whole(stand: Stand) -> None:
    with httpx.Client(transport=ResumingTransport(patience=QUICK)) as client:
        for cut in lengths(WHOLLY):
            stand.cuts = [cut, cut // 2]
            assert client.post(f"{stand.url}/chat/completions", json=WHOLLY).content == WHOLE, f"cut after {cut} bytes"


def test_the_sdk_notices_nothing(stand: Stand) -> None:
    with OpenAI(base_url=stand.url, max_retries=0) as client:
        for cut in range(0, len(lengths(STREAMED)), 97):
            stand.cuts = [cut, cut // 3, cut // 2]
            chunks = list(client.chat.completions.create(model="m", messages=[], stream=True))
            assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == SAID
            stand.cuts = [cut]
            answer = client.chat.completions.create(model="m", messages=[])
            assert answer.choices[0].message.content == SAID


def test_the_asynchronous_sdk_notices_nothing(stand: Stand) -> None:
    async def story() -> None:
        async with AsyncOpenAI(base_url=stand.url, max_retries=0) as client:
            for cut in range(0, len(lengths(STREAMED)), 97):
                stand.cuts = [cut, cut // 3, cut // 2]
                stream = await client.chat.completions.create(model="m", messages=[], stream=True)
                assert "".join([chunk.choices[0].delta.content or "" async for chunk in stream]) == SAID
                stand.cuts = [cut]
                answer = await client.chat.completions.create(model="m", messages=[])
                assert answer.choices[0].message.content == SAID

    asyncio.run(story())


def test_a_client_made_without_words_asks_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    with OpenAI() as client:
        assert (str(client.base_url), client.api_key) == ("http://127.0.0.1:8000/v1/", "none")
        assert (client.max_retries, client.timeout) == (2, client.with_options().timeout)
    monkeypatch.setenv("OPENAI_BASE_URL", "http://elsewhere/v1")
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    with OpenAI() as client:
        assert (str(client.base_url), client.api_key) == ("http://elsewhere/v1/", "k")


def test_a_host_that_does_not_exist_is_told_at_once() -> None:
    with httpx.Client(transport=ResumingTransport(patience=QUICK)) as client, pytest.raises(httpx.ConnectError):
        client.post("http://no-such-host.invalid/v1/chat/completions", json=WHOLLY, timeout=20)


def test_importing_the_client_is_light_and_needs_no_sdk() -> None:
    program = (
        "import sys; sys.modules['openai'] = None\n"
        "from holdfast.client import OpenAI, AsyncOpenAI, ResumingTransport\n"
        "heavy = {'torch', 'uvloop', 'httptools', 'starlette', 'tokenizers', 'grpc', 'holdfast.gateway'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "for make in (OpenAI, AsyncOpenAI):\n"
        "    try: make()\n"
        "    except ImportError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [sdk.MISSING.format("OpenAI"), sdk.MISSING.format("AsyncOpenAI")]
    assert "pip install openai" in done.stdout
