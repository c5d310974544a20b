"""The API as an OpenAPI 3.1 document: made of the structs that the door decodes with, so that it can't say anything else.

Answers are put together from bytes, so theirs are the types of gateway/answers.py, which tests hold them against. A surface that
this table does not name fails a test, and so does a page of it that the door does not answer, or a status that it does not list.
"""

from collections.abc import Iterable
from functools import cache
from typing import Any

import msgspec
from msgspec import Struct

from holdfast import __version__
from holdfast.gateway import answers, anthropic_wire, completion_wire, responses_wire, token_wire
from holdfast.gateway.openai_wire import Ask

VERSION = "3.1.0"
JSON = "application/json"
WHYS = {
    400: "The request is wrong: `param` names the field, `message` the fix.",
    401: "The API key is missing or unknown.",
    403: "The API key may not do this.",
    404: "There is no such model, answer or page, or it is not yours.",
    405: "The page is asked with another method: see `allow`.",
    408: "Head or body took too long.",
    409: "The same request is being answered, or another worker has the answer now.",
    413: "The body is too large.",
    417: "An expectation other than 100-continue.",
    422: "The request is quarantined, or its Idempotency-Key came before with another body.",
    429: "A limit of yours is met: `error.limit` says which, `retry-after` when to come again.",
    431: "The head is too large.",
    500: "Holdfast made a mistake.",
    501: "A Transfer-Encoding that is not spoken here.",
    503: "There is no room, or nobody to answer: `retry-after` tells when to come again.",
    504: "The deadline passed.",
    505: "HTTP/1.1 and 1.0 are spoken here.",
}
ALWAYS = (400, 405, 408, 413, 417, 429, 431, 500, 501, 503, 505)  # what the door may say to anything
KEYED = (401, 403)
ASKING = (404, 409, 422, 504)


class Page(Struct, frozen=True, kw_only=True):
    """One method of one path. `asked` is the type of its body, `said` that of its answer, or one of `others`, `wrong` that of a
    refusal; `streams`: events, where asked for."""

    path: str
    method: str
    title: str
    asked: Any = None
    said: Any = None
    streams: bool = False
    keyed: bool = True
    statuses: tuple[int, ...] = ()
    others: tuple[Any, ...] = ()
    wrong: Any = answers.Error
    headers: tuple[str, ...] = ()


# What a request's head may say: name -> (schema, meaning)
HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "x-request-id": (
        {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
        "Your name for the request, repeated in the answer.",
    ),
    "x-holdfast-deadline-s": ({"type": "number", "exclusiveMinimum": 0}, "Seconds that the whole answer may take."),
    "x-holdfast-priority": ({"type": "integer"}, "A band; it can only lower the tenant's own."),
    "x-holdfast-degrade": ({"type": "string", "enum": ["never"]}, "No answer rather than a lesser one."),
    "x-holdfast-session": ({"type": "string", "pattern": "^[!-~]{1,128}$"}, "What belongs together, for caches."),
    "x-holdfast-resume": (
        {"type": "string", "enum": ["yes"]},
        "You will come back for the answer, should the connection be lost.",
    ),
    "idempotency-key": (
        {"type": "string", "pattern": "^[!-~]{1,255}$"},
        "The same key and body get the same answer, not a second one.",
    ),
    "last-event-id": ({"type": "string"}, "The id of the last event that came."),
}
ASKER = (
    "x-request-id", "x-holdfast-deadline-s", "x-holdfast-priority", "x-holdfast-degrade", "x-holdfast-session",
    "x-holdfast-resume", "idempotency-key",
)  # fmt: skip
PAGES: tuple[Page, ...] = (
    Page(
        path="/v1/chat/completions",
        method="post",
        title="An answer to a conversation, whole or as it comes.",
        asked=Ask,
        said=answers.ChatCompletion,
        streams=True,
        statuses=ASKING,
        headers=ASKER,
    ),
    Page(
        path="/v1/completions",
        method="post",
        title="Texts that go on from others, or fill a gap.",
        asked=completion_wire.CompletionBody,
        said=answers.TextCompletion,
        streams=True,
        statuses=ASKING,
        headers=ASKER,
    ),
    Page(
        path="/v1/responses",
        method="post",
        title="An answer in the shape of OpenAI's Responses API. Nothing is stored.",
        asked=responses_wire.Body,
        said=answers.ResponseMade,
        streams=True,
        statuses=ASKING,
        headers=ASKER,
    ),
    Page(
        path="/anthropic/v1/messages",
        method="post",
        title="An answer in the shape of Anthropic's Messages API.",
        asked=anthropic_wire.Body,
        said=answers.AnthropicMessage,
        streams=True,
        statuses=ASKING,
        headers=ASKER,
        wrong=answers.AnthropicError,
    ),
    Page(
        path="/anthropic/v1/messages/count_tokens",
        method="post",
        title="How many tokens such a request would have.",
        asked=anthropic_wire.CountBody,
        said=answers.Counted,
        statuses=ASKING,
        headers=("x-request-id",),
        wrong=answers.AnthropicError,
    ),
    Page(
        path="/v1/tokenize",
        method="post",
        title="The token ids of a text or a conversation.",
        asked=token_wire.TokenizeBody,
        said=answers.Tokenized,
        statuses=ASKING,
        headers=("x-request-id",),
    ),
    Page(
        path="/v1/detokenize",
        method="post",
        title="The text of token ids.",
        asked=token_wire.DetokenizeBody,
        said=answers.Detokenized,
        statuses=ASKING,
        headers=("x-request-id",),
    ),
    Page(
        path="/v1/streams/{id}",
        method="get",
        title="An answer whose connection was lost: the rest of it, or all, in the shape in which it was begun.",
        said=answers.ChatCompletion,
        others=(answers.TextCompletion, answers.ResponseMade, answers.AnthropicMessage),
        streams=True,
        statuses=(404, 409, 504),
        headers=("x-request-id", "last-event-id"),
    ),
    Page(path="/v1/models", method="get", title="What there is to ask.", said=answers.Models),
    Page(path="/v1/models/{id}", method="get", title="One of them.", said=answers.ModelRow, statuses=(404,)),
    Page(path="/openapi.json", method="get", title="This document.", said=dict[str, Any], keyed=False),
    Page(path="/health/live", method="get", title="This worker lives.", said=answers.Live, keyed=False),
    Page(path="/health/ready", method="get", title="Traffic may come.", said=answers.Ready, keyed=False),
)


@cache
def described() -> bytes:
    """The document as JSON, made when somebody first asks."""
    return msgspec.json.encode(document(version=__version__))


def document(pages: Iterable[Page] = PAGES, version: str = "0") -> dict[str, Any]:
    """The document. `version` is Holdfast's own."""
    pages = tuple(pages)
    types: list[Any] = []
    for kind in (kind for page in pages for kind in (page.asked, page.said, page.wrong, *page.others)):
        if kind is not None and kind not in types:
            types.append(kind)
    schemas, parts = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    shape = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for page in pages:
        paths.setdefault(page.path, {})[page.method] = _operation(page, shape)
    return {
        "openapi": VERSION,
        "info": {
            "title": "Holdfast",
            "version": version,
            "summary": "DeepSeek on your own hardware, as OpenAI's and DeepSeek's clients ask for it.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": parts,
            "securitySchemes": {
                "key": {"type": "http", "scheme": "bearer", "description": "Where keys are configured."}
            },
        },
    }


def _operation(page: Page, shape: dict[Any, Any]) -> dict[str, Any]:
    """One page's entry."""
    content: dict[str, Any] = {JSON: {"schema": {"anyOf": [shape[kind] for kind in (page.said, *page.others)]}}}
    if page.streams:
        content["text/event-stream"] = {"schema": {"type": "string"}}
    found: dict[str, Any] = {"200": {"description": page.title, "content": content}}
    statuses = {*ALWAYS, *page.statuses, *(KEYED if page.keyed else ())}
    error = {JSON: {"schema": shape[page.wrong]}}
    for status in sorted(statuses):
        found[str(status)] = {"description": WHYS[status], "content": error}
    made: dict[str, Any] = {"summary": page.title, "responses": found}
    if page.said is answers.Ready:
        found["503"]["content"] = {JSON: {"schema": {"anyOf": [shape[page.wrong], shape[page.said]]}}}
    if page.keyed:
        made["security"] = [{"key": []}, {}]
    parameters = [_parameter(name) for name in page.headers]
    if "{id}" in page.path:
        parameters.append({"name": "id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}})
    if parameters:
        made["parameters"] = parameters
    if page.asked is not None:
        body = {JSON: {"schema": shape[page.asked]}}
        made["requestBody"] = {"required": True, "content": body}
    return made


def _parameter(name: str) -> dict[str, Any]:
    schema, meaning = HEADERS[name]
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": meaning}
