"""Gateway workers die under clients of holdfast.client: real processes, the openai SDK, and nobody notices."""

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from site_up import Site

from holdfast.client import AsyncOpenAI, AsyncResumingTransport, OpenAI, ResumingTransport

KEY = "sk-resume"
SHIPPED = Path(__file__).parents[2] / "src/holdfast/shipped/pearl"
STREAMS = 8
TOKENS = 80
RESTART = {"free": 10_000, "deaths_max": 10_000}
ADD: list[Any] = [
    {
        "type": "function",
        "function": {
            "name": "get_weather",
            "description": "Current weather for a city",
            "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
        },
    }
]


class Counted(httpx.HTTPTransport):
    """Takes down what really goes out."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request.method)
        return super().handle_request(request)


class AsyncCounted(httpx.AsyncHTTPTransport):
    """The same for asyncio."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request.method)
        return await super().handle_async_request(request)


def scripted(folder: Path, workers: int) -> Site:
    replica = {"engine": "scripted", "count": 2, "token_ms": 20.0}
    gateway = {"workers": workers, "key": KEY, "drain_s": 20.0}
    return Site(folder, replica=replica, gateway=gateway, restart=RESTART, probe={"worker_silent_s": 1.5})


@pytest.fixture(scope="module", params=[2, 1], ids=["two workers", "one worker"])
def site(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Answers known beforehand, 20 ms a token."""
    with scripted(tmp_path_factory.mktemp("resume"), request.param) as one:
        one.wait_ready()
        yield one


@pytest.fixture(scope="module")
def pearl(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The model that ships, behind one worker."""
    if not (SHIPPED / "model.safetensors").is_file():
        pytest.skip("the shipped model's weights are not in this checkout")
    replica = {"engine": "embedded", "count": 1}
    with Site(tmp_path_factory.mktemp("pearl"), replica=replica, gateway={"key": KEY}, restart=RESTART) as one:
        one.wait_ready()
        yield one


def ready(site: Site) -> dict[str, int]:
    """Name -> pid of all workers, once all serve."""
    count = site.tree["gateway"].get("workers", 1)

    def serving() -> dict[str, int]:
        rows = [one for one in site.view().get("processes", []) if one["role"] == "gateway"]
        found = {one["name"]: one["pid"] for one in rows if one["state"] == "serving" and one["pid"]}
        return found if len(found) == count else {}

    found: dict[str, int] = site.wait("all workers in service", serving)
    return found


def busiest(site: Site) -> str:
    """The worker with the most client connections: those that were opened first may all have gone to one."""
    port, established = f":{site.tree['gateway']['port']:04X}", "01"
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = {f"socket:[{row[9]}]" for row in rows if row[1].endswith(port) and row[3] == established}

    def connections(pid: int) -> int:
        return sum(_target(fd) in ours for fd in Path(f"/proc/{pid}/fd").iterdir())

    workers = ready(site)
    return max(workers, key=lambda name: connections(workers[name]))


def _target(fd: Path) -> str:
    try:
        return str(fd.readlink())
    except OSError:
        return ""  # closed in between


def client(site: Site, inner: Counted | None = None) -> openai.OpenAI:
    http = httpx.Client(transport=ResumingTransport(inner or Counted()), timeout=60)
    return OpenAI(base_url=site.url, api_key=KEY, max_retries=0, http_client=http)


def asked(number: int, **more: Any) -> dict[str, Any]:
    body: dict[str, Any] = {"model": "pearl", "messages": [{"role": "user", "content": "hello"}], "seed": number}
    return {**body, "max_tokens": TOKENS, **more}


def thinking(number: int) -> dict[str, Any]:
    return asked(number, extra_body={"thinking": {"type": "enabled"}, "ignore_eos": True})


def spoken(number: int) -> dict[str, Any]:
    return asked(number, extra_body={"ignore_eos": True}, logprobs=True)


def joined(chunks: list[Any]) -> dict[str, Any]:
    """What a stream has said altogether."""
    said: dict[str, Any] = {"reasoning": "", "content": "", "calls": {}, "finish": [], "tokens": [], "roles": 0}
    for choice in (choice for chunk in chunks for choice in chunk.choices):
        delta = choice.delta
        said["roles"] += delta.role is not None
        said["content"] += delta.content or ""
        said["reasoning"] += (delta.model_extra or {}).get("reasoning_content") or ""
        said["finish"] += [choice.finish_reason] if choice.finish_reason else []
        said["tokens"] += [one.token for one in choice.logprobs.content] if choice.logprobs else []
        for call in delta.tool_calls or []:
            name, arguments = said["calls"].get(call.index, ("", ""))
            said["calls"][call.index] = (
                name + (call.function.name or ""),
                arguments + (call.function.arguments or ""),
            )
    return said


def at_rest(site: Site, made: Callable[[int], dict[str, Any]]) -> list[dict[str, Any]]:
    with client(site) as one:
        return [joined(list(one.chat.completions.create(**made(n), stream=True))) for n in range(2)]


@pytest.mark.parametrize("made", [spoken, thinking], ids=["logprobs", "thinking"])
@pytest.mark.parametrize("blow", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "frozen"])
def test_streams_of_the_blocking_sdk_survive_their_worker(site: Site, made: Any, blow: int) -> None:
    ready(site)
    wanted, inner = at_rest(site, made), Counted()
    begun = threading.Barrier(STREAMS + 1)

    def listen(number: int) -> dict[str, Any]:
        stream = one.chat.completions.create(**made(number % 2), stream=True)
        chunks = [next(stream) for _ in range(5)]
        begun.wait(60)
        return joined([*chunks, *stream])

    with client(site, inner) as one, ThreadPoolExecutor(STREAMS) as pool:
        answers = [pool.submit(listen, number) for number in range(STREAMS)]
        begun.wait(60)
        site.kill(busiest(site), blow)
        got = [answer.result(60) for answer in answers]
    assert got == [wanted[number % 2] for number in range(STREAMS)]
    assert inner.sent.count("POST") == STREAMS
    assert inner.sent.count("GET") >= 1, "nobody had to reconnect: the wrong worker was hurt"


def test_streams_of_the_asynchronous_sdk_survive_their_worker(site: Site) -> None:
    ready(site)
    wanted, inner = at_rest(site, spoken), AsyncCounted()

    async def story() -> list[dict[str, Any]]:
        http = httpx.AsyncClient(transport=AsyncResumingTransport(inner), timeout=60)
        begun = asyncio.Barrier(STREAMS + 1)
        async with AsyncOpenAI(base_url=site.url, api_key=KEY, max_retries=0, http_client=http) as one:

            async def listen(number: int) -> dict[str, Any]:
                stream = await one.chat.completions.create(**spoken(number % 2), stream=True)
                chunks = [await anext(aiter(stream)) for _ in range(5)]
                await begun.wait()
                return joined([*chunks, *[chunk async for chunk in stream]])

            async with asyncio.TaskGroup() as group:
                answers = [group.create_task(listen(number)) for number in range(STREAMS)]
                await begun.wait()
                site.kill(busiest(site))
        return [answer.result() for answer in answers]

    assert asyncio.run(story()) == [wanted[number % 2] for number in range(STREAMS)]
    assert inner.sent.count("GET") >= 1, "nobody had to reconnect: the wrong worker was hurt"


def test_whole_answers_survive_their_worker(site: Site) -> None:
    ready(site)
    inner = Counted()

    def ask(number: int) -> str:
        answer = one.chat.completions.create(**spoken(number % 2))
        assert answer.usage is not None and answer.usage.completion_tokens == TOKENS
        return answer.choices[0].message.content or ""

    with client(site, inner) as one, ThreadPoolExecutor(STREAMS) as pool:
        wanted = [ask(0), ask(1)]
        answers = [pool.submit(ask, number) for number in range(STREAMS)]
        site.wait("all under way", lambda: running(site) == STREAMS)
        site.kill(busiest(site))
        got = [answer.result(60) for answer in answers]
    assert got == [wanted[number % 2] for number in range(STREAMS)]
    assert inner.sent.count("POST") > STREAMS + 2, "nobody had to ask again: the wrong worker was hurt"


def running(site: Site) -> int:
    """Answers that replicas are making, by the supervisor's last view."""
    return sum((row["load"] or [0, 0])[1] for row in site.view()["processes"])


def test_new_requests_wait_for_a_worker_and_are_not_refused(site: Site) -> None:
    workers = ready(site)
    for pid in workers.values():
        os.kill(pid, signal.SIGKILL)
    with client(site) as one:
        assert one.chat.completions.create(**asked(3, max_tokens=4)).usage is not None


def test_a_refusal_is_the_callers_at_once(site: Site) -> None:
    inner = Counted()
    with client(site, inner) as one, pytest.raises(openai.AuthenticationError):
        one.with_options(api_key="wrong").chat.completions.create(**asked(3))
    assert inner.sent == ["POST"]


@pytest.mark.parametrize(
    "more",
    [
        {"tools": ADD, "messages": [{"role": "user", "content": "What is the weather in Rome?"}]},
        {
            "messages": [{"role": "user", "content": "What is 47 + 38?"}],
            "extra_body": {"thinking": {"type": "enabled"}},
        },
        {"messages": [{"role": "user", "content": "Count from 7 to 68."}]},
    ],
    ids=["a tool call", "a thought", "a long answer"],
)
def test_an_answer_of_the_model_survives_the_only_worker(pearl: Site, more: dict[str, Any]) -> None:
    body = asked(1, temperature=0, **{"max_tokens": 200, **more})
    ready(pearl)
    with client(pearl) as one:
        wanted = joined(list(one.chat.completions.create(**body, stream=True)))
    inner = Counted()
    with client(pearl, inner) as one:
        stream = one.chat.completions.create(**body, stream=True)
        first = next(stream)
        pearl.kill(next(iter(ready(pearl))))
        got = joined([first, *stream])
    assert got == wanted
    assert inner.sent == ["POST", *["GET"] * (len(inner.sent) - 1)] and len(inner.sent) > 1
    if "tools" in more:
        (name, arguments) = got["calls"][0]
        assert (name, json.loads(arguments)) == ("get_weather", {"city": "Rome"})
