"""The OpenAPI document against the running site: requests made from it, good and bad, are answered as it says, and never with a 5xx."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)
from site_up import Site

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]
REPLICA = {"engine": "scripted", "count": 2, "slots": 16, "token_ms": 0.1, "context_tokens_max": 256}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[schemathesis.BaseSchema]:
    """The document, as the site itself gives it."""
    limits = {"requests_per_s": 1e6, "burst": 1e6, "throttle_factor": 1e9}
    with Site(tmp_path_factory.mktemp("api"), replica=REPLICA, admission=limits) as site:
        site.wait_ready()
        yield schemathesis.openapi.from_url(f"{site.url.removesuffix('/v1')}/openapi.json")


schema = schemathesis.pytest.from_fixture("api")


@schema.parametrize()
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
def test_what_the_document_says_holds(case: schemathesis.Case) -> None:
    case.headers.pop("x-holdfast-deadline-s", None)  # a deadline that is too short is answered with a 504, rightly
    case.call_and_validate(checks=CHECKS, timeout=20)
