"""The OpenAPI document is sound, names every page that the door answers, and says of answers what they are."""

import json
from typing import Any

import msgspec
import pytest
from doorway import Answer, Says, doorway, run
from openapi_spec_validator import validate

from holdfast.gateway import answers
from holdfast.gateway.openapi import PAGES, Page, document
from holdfast.gateway.refusals import TYPES
from holdfast.gateway.surfaces import SURFACES

TURN = [{"role": "user", "content": "Hi"}]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
CALLING = "<think>Hm.</think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
ASKED: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": TURN, "logprobs": True, "top_logprobs": 1, "tools": [TOOL]},
    "/v1/completions": {"prompt": "one"},
    "/v1/responses": {"input": "Hi"},
    "/anthropic/v1/messages": {"messages": TURN, "max_tokens": 9},
    "/anthropic/v1/messages/count_tokens": {"messages": TURN},
    "/v1/tokenize": {"prompt": "one two"},
    "/v1/detokenize": {"tokens": [30, 31]},
}


def test_the_document_is_sound_and_every_surface_is_in_it() -> None:
    validate(document())
    named = {page.path.encode() for page in PAGES}
    for surface in SURFACES:
        assert named & set(surface.paths), f"{surface.name} is missing in gateway/openapi.py"


def told(path: str, body: dict[str, Any] | None, text: str = "Hello there.") -> Answer:
    """What a door says to this."""

    async def story() -> Answer:
        async with doorway(Says(text)) as place, place.client() as client:
            return await client.ask(body, path)

    return run(story())


@pytest.mark.parametrize("page", [page for page in PAGES if "{" not in page.path], ids=lambda page: page.path)
@pytest.mark.parametrize("text", ["Hello there.", CALLING])
def test_what_the_door_says_is_of_the_type_that_the_document_names(page: Page, text: str) -> None:
    body = ASKED[page.path] | {"model": "pearl"} if page.method == "post" else None
    answer = told(page.path, body, text)
    assert answer.status == 200, answer.body
    msgspec.json.decode(answer.body, type=page.said)


@pytest.mark.parametrize("page", [page for page in PAGES if page.method == "post"], ids=lambda page: page.path)
def test_what_is_wrong_is_said_in_the_shape_that_the_document_names(page: Page) -> None:
    answer = told(page.path, {"model": 7})
    assert answer.status == 400
    msgspec.json.decode(answer.body, type=page.wrong)


def test_the_document_is_served() -> None:
    served = json.loads(told("/openapi.json", None).body)
    assert served["openapi"] == "3.1.0"
    assert served["paths"].keys() == {page.path for page in PAGES}


def test_a_type_that_lacks_a_key_of_an_answer_would_be_found() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(b'{"live":true,"more":1}', type=answers.Live)


def test_what_the_door_says_before_it_knows_the_page_is_in_the_document() -> None:
    told = {
        int(status) for path in document()["paths"].values() for page in path.values() for status in page["responses"]
    }
    assert told == TYPES.keys() | {200}
