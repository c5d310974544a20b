"""Faults and mistakes as OpenAI's error body, with DeepSeek's statuses."""

from math import ceil

import msgspec
from msgspec import Struct

from holdfast.domain.fault import (
    BadRequest,
    EngineLost,
    EngineRefused,
    Expired,
    Fault,
    Fenced,
    Forbidden,
    NoReplica,
    Overloaded,
    Poisonous,
    Unauthorised,
)

JSON_TYPE = b"content-type: application/json\r\n"
TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    417: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    431: "invalid_request_error",
    500: "server_error",
    501: "invalid_request_error",
    503: "overloaded_error",
    504: "timeout_error",
    505: "invalid_request_error",
}
BY_CODE = {
    "not_found": 404,
    "model_not_found": 404,
    "stream_not_found": 404,
    "idempotency_in_progress": 409,
    "request_too_large": 413,
    "idempotency_key_reused": 422,
}
RETRY_S = {"idempotency_in_progress": 1.0}


class Refusal(Struct, frozen=True):
    """An answer that is an error: status, extra header lines, JSON body, and the word it is counted under."""

    status: int
    headers: bytes
    body: bytes
    code: str
    why: str


def refusal(status: int, why: str, code: str, retry_after_s: float = 0.0, param: str | None = None) -> Refusal:
    """The error page for a status. Retry-After is whole seconds, at least 1, where it is given at all."""
    body = msgspec.json.encode({"error": {"message": why, "type": TYPES[status], "param": param, "code": code}})
    headers = JSON_TYPE
    if retry_after_s > 0:
        headers += b"retry-after: %d\r\n" % max(1, ceil(retry_after_s))
    return Refusal(status, headers, body, code, why)


def over_limit(fault: Overloaded) -> Refusal:
    """The error page of one that was not let in: which limit, how much of it was used, when it frees.

    `retry-after-ms` is what the openai SDKs read first; whole seconds are for everybody else.
    """
    status, after_s, limit = fault.status, fault.retry_after_s, fault.limit
    code = "rate_limit_exceeded" if status == 429 else "overloaded"
    error = {
        "message": fault.why,
        "type": TYPES[status],
        "param": None,
        "code": code,
        "limit": {
            "name": limit.name,
            "used": round(limit.used, 3),
            "size": round(limit.size, 3),
            "unit": limit.unit,
            "frees_s": round(limit.frees_s, 3),
        },
    }
    whole_s, ms = max(1, ceil(after_s)), max(1, ceil(after_s * 1000))
    headers = JSON_TYPE + b"retry-after: %d\r\nretry-after-ms: %d\r\n" % (whole_s, ms)
    return Refusal(status, headers, msgspec.json.encode({"error": error}), code, fault.why)


def refusal_for(fault: Fault) -> Refusal:
    """What a client is told about a fault."""
    match fault:
        case BadRequest(why=why, param=param, code=code):
            word = code or "invalid_value"
            return refusal(BY_CODE.get(word, 400), why, word, RETRY_S.get(word, 0.0), param)
        case Unauthorised(why=why):
            return refusal(401, why, "invalid_api_key")
        case Forbidden(why=why):
            return refusal(403, why, "scope_missing")
        case Overloaded():
            return over_limit(fault)
        case Poisonous(why=why):
            return refusal(422, why, "request_quarantined")
        case Fenced(why=why):
            return refusal(409, why, "answer_taken_over")
        case Expired(why=why):
            return refusal(504, why, "deadline_exceeded")
        case NoReplica(why=why) | EngineRefused(why=why):
            return refusal(503, why, "no_replica", 1.0)
        case EngineLost(why=why):
            return refusal(503, why, "engine_lost", 1.0)
    return refusal(500, fault.why, "internal_error")
