"""The OpenAPI document against the running site: what is asked by it, good and bad, is answered as it says, never with a 5xx."""

from collections.abc import Iterator
from itertools import count

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from site_up import Site

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
REPLICA = {"engine": "scripted", "count": 2, "slots": 16, "token_ms": 0.1, "context_tokens_max": 256}
EXAMPLES = 25
ANSWERS = {"POST /v1/chat/completions", "POST /v1/completions", "POST /v1/responses", "POST /anthropic/v1/messages"}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    """The document, as the site itself gives it."""
    limits = {"requests_per_s": 1e6, "burst": 1e6, "throttle_factor": 1e9}
    with Site(tmp_path_factory.mktemp("api"), replica=REPLICA, admission=limits) as site:
        site.wait_ready()
        yield schemathesis.openapi.from_url(f"{site.url.removesuffix('/v1')}/openapi.json")


def answered(operation: schemathesis.schemas.APIOperation, mode: GenerationMode) -> set[int]:
    """The statuses that requests to one page were answered with, each answer held against the document."""
    found: set[int] = set()
    numbers = count()

    @settings(max_examples=EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(operation.as_strategy(generation_mode=mode))
    def holds(case: schemathesis.Case) -> None:
        if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
            case.body["model"] = "pearl"  # of all strings the one that gets beyond the first look
        if "idempotency-key" in case.headers:
            case.headers["idempotency-key"] = f"{operation.label.replace(' ', '')}-{mode.value}-{next(numbers)}"
        case.headers.pop("x-holdfast-deadline-s", None)  # one that is too short is answered with a 504, rightly
        found.add(case.call_and_validate(checks=CHECKS, timeout=20).status_code)

    holds()
    return found


def test_good_requests_are_answered_as_the_document_says(api: schemathesis.BaseSchema) -> None:
    statuses = {one.ok().label: answered(one.ok(), GenerationMode.POSITIVE) for one in api.get_all_operations()}
    served = {label for label, found in statuses.items() if 200 in found}
    assert ANSWERS | {"GET /v1/models", "GET /health/ready"} <= served, statuses


def test_bad_requests_are_refused_as_the_document_says(api: schemathesis.BaseSchema) -> None:
    asking = [one.ok() for one in api.get_all_operations() if one.ok().method == "post"]
    for operation in asking:
        assert max(answered(operation, GenerationMode.NEGATIVE)) >= 400
