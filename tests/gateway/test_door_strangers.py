"""What somebody tries who knows how the door is built: keys said in two ways, repeats in another shape, bands without number."""

import threading
from collections.abc import MutableMapping
from dataclasses import replace
from hashlib import blake2b
from typing import Any

import pytest
from doorway import PEARL, HandClock, Says, chat_body, doorway, run
from test_door_resume import Goes, desk

from holdfast.domain.dialect import Form
from holdfast.domain.fault import Forbidden
from holdfast.domain.tenant import PRIORITY_MIN
from holdfast.fleet.control import Papers, control_app
from holdfast.fleet.load import SiteLoad
from holdfast.gateway.journal import claim_of_key, digest_of_key
from holdfast.gateway.needs import Limits
from holdfast.sim.shelf import SimShelves

SCHEMA = {"type": "object", "properties": {"a": {"type": "string", "pattern": "^[a-z]{1,9}$"}}}


class Where:
    """Pearl's dialect, which writes down in which thread a grammar was made."""

    def __init__(self) -> None:
        self.threads: list[threading.Thread] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(PEARL, name)

    def grammar(self, prompt_ids: list[int], form: Form) -> str:
        self.threads.append(threading.current_thread())
        return PEARL.grammar(prompt_ids, form)


def test_a_repeat_at_another_path_is_not_answered_in_the_first_ones_shape() -> None:
    async def story() -> None:
        service, shelves, clock = Goes(), SimShelves(), HandClock()
        async with desk(service, shelves, clock) as one:
            body = chat_body(max_tokens=50)
            await one.ask(body=body, idempotency_key="k1")
            other = await one.ask("/anthropic/v1/messages", body, idempotency_key="k1")
            assert other.status == 422
            assert "path" in other.error["message"]
            assert (await one.ask("/beta/chat/completions", body, idempotency_key="k1")).status == 200
            assert len(service.asked) == 1

    run(story())


def test_who_waited_in_vain_does_not_let_go_of_anothers_claim() -> None:
    async def story() -> None:
        service, shelves, clock = Goes(), SimShelves(), HandClock()
        async with desk(service, shelves, clock) as one:
            claim = claim_of_key(blake2b(b"k1", digest_size=16, key=digest_of_key("")).hexdigest())
            assert one.shelf.claim(claim)  # a request that waits at the gate
            for _ in range(2):
                answer = await one.ask(body=chat_body(), idempotency_key="k1")
                assert answer.error["code"] == "idempotency_in_progress"
            assert (list(shelves.claims), service.asked) == ([claim], [])

    run(story())


def test_a_key_is_one_key_however_it_is_said() -> None:
    async def story() -> None:
        said: list[dict[str, str]] = [
            {"authorization": "Bearer acme"},
            {"authorization": "bearer   acme"},
            {"authorization": "Basic 1", "x_api_key": "acme"},
            {"x_api_key": "acme"},
        ]
        async with doorway(Says(), Limits(connections_per_key_max=1)) as place, place.client() as first:
            assert (await first.ask(chat_body(), authorization="Bearer acme")).status == 200
            for headers in said:
                async with place.client() as client:
                    answer = await client.ask(chat_body(), **headers)
                    assert (answer.status, answer.error["code"]) == (429, "connections_per_key"), headers

    run(story())


def test_a_client_makes_no_bands_without_number() -> None:
    async def story() -> None:
        says = Says()
        async with doorway(says) as place, place.client() as client:
            for band in ("-11", "-" + "9" * 100, "-3"):
                assert (await client.ask(chat_body(), x_holdfast_priority=band)).status == 200
        assert [one.priority for one in says.asked] == [PRIORITY_MIN, PRIORITY_MIN, -3]

    run(story())


def test_a_grammar_is_never_tried_out_on_the_loop() -> None:
    async def story() -> None:
        dialect = Where()
        form = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}
        call = {"name": "f", "description": "", "input_schema": SCHEMA}
        function = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
        message = {"model": "pearl", "messages": [{"role": "user", "content": "Hi"}], "tool_choice": {"type": "any"}}
        async with doorway(Says('{"a":"b"}'), dialect=dialect) as place, place.client() as client:
            await client.ask(chat_body(response_format=form))
            await client.ask(chat_body(tools=[function], tool_choice="required"))
            text = {"format": {"type": "json_schema", "name": "x", "strict": True, "schema": SCHEMA}}
            await client.ask({"model": "pearl", "input": "Hi", "text": text}, "/v1/responses")
            await client.ask({**message, "tools": [call], "max_tokens": 9}, "/anthropic/v1/messages")
            await client.ask({**message, "tools": [call]}, "/anthropic/v1/messages/count_tokens")
        assert len(dialect.threads) == 5
        assert threading.main_thread() not in dialect.threads

    run(story())


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("https://evil.example", 403), ("http://evil.example:8000", 403), ("null", 403), ("http://10.0.0.7", 403),
        ("http://localhost.evil.example", 403), ("http://127.0.0.1@evil.example", 403), ("HTTPS://EVIL.example", 403),
        ("http://a:b@c", 403),
        ("http://localhost:3000", 200), ("http://[::1]:3000", 200), ("https://chat.example", 200), ("app://notes", 200),
    ],
)  # fmt: skip
def test_a_web_page_can_not_ask_through_its_readers_browser_where_no_key_is_needed(origin: str, status: int) -> None:
    async def story() -> None:
        says, wanted = Says(), {"cors": ("https://chat.example",)}
        async with doorway(says, takes_anybody=lambda key: True, **wanted) as place, place.client() as client:
            answer = await client.ask(chat_body(), origin=origin, content_type="text/plain")
            assert answer.status == status
            assert len(says.asked) == (status == 200)
            assert (await client.ask({"prompt": "Hi"}, "/v1/tokenize", origin=origin)).status == status
        async with doorway(says, takes_anybody=lambda key: not key, **wanted) as place, place.client() as client:
            assert (await client.ask(chat_body(), origin=origin, authorization="Bearer acme")).status == 200

    run(story())


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:7300", 200), ("localhost:7300", 200), ("[::1]:7300", 200), ("evil.example:7300", 403),
        ("127.0.0.1.evil", 403), ("", 403),
    ],
)  # fmt: skip
def test_a_name_that_was_made_to_mean_this_machine_reads_no_page_of_the_control_plane(host: str, status: int) -> None:
    async def ask(papers: Papers, path: str) -> int:
        said: list[int] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: MutableMapping[str, Any]) -> None:
            said.extend([message["status"]] if message["type"] == "http.response.start" else [])

        scope = {
            "type": "http",
            "method": "GET",
            "path": path,
            "query_string": b"",
            "headers": [(b"host", host.encode())],
        }
        await control_app(papers, lambda: None)(scope, receive, send)
        return said[0]

    async def story() -> None:
        papers = Papers(lambda: None, lambda count: [], SiteLoad, here=True)
        for path in ("/v1/events", "/metrics"):
            assert await ask(papers, path) == status
            assert await ask(replace(papers, here=False), path) == 200
            asked = replace(papers, screen=lambda key, scopes: None if key else Forbidden("no key"))
            assert await ask(asked, path) == 403
        assert await ask(papers, "/health") == 200

    run(story())
