"""Every limit that a request can meet, as a table: its word in refusals, whose it is, where it is set, what it means.

The word is in the refusal's body (`error.limit.name`) and in the figures, so it is stable. `holdfast limits` prints the table.
"""

from msgspec import Struct

OURS, YOURS = 503, 429


class LimitWords(Struct, frozen=True):
    """One limit. `status` 429 is the caller's own, 503 all of ours; `setting` is `section.key`, empty where nothing sets it."""

    name: str
    status: int
    setting: str
    meaning: str


LIMITS = (
    LimitWords("site_rate", YOURS, "admission.requests_per_s", "more requests a second than the site lets in"),
    LimitWords("tenant_rate", YOURS, "tenants.requests_per_s", "more requests a second than this tenant may send"),
    LimitWords(
        "throttled", YOURS, "admission.throttle_factor", "this client sends far more than is accepted of it: slow down"
    ),
    LimitWords(
        "tenant_quota", YOURS, "tenants.tokens_per_min", "the tenant's tokens of this minute are used or reserved"
    ),
    LimitWords("tenant_concurrency", YOURS, "tenants.concurrency", "as many of its answers run as may at once"),
    LimitWords("tenant_memory", YOURS, "tenants.memory_max", "it holds its largest share of slots and cache"),
    LimitWords("queue_requests", OURS, "admission.queue_max", "as many requests wait as may"),
    LimitWords("queue_tokens", OURS, "admission.queue_tokens_max", "as much work waits as may"),
    LimitWords("queue_bytes", OURS, "admission.queue_bytes_max", "as many bytes of requests wait as may"),
    LimitWords("queue_wait", OURS, "admission.queue_wait_s", "it would wait longer than makes sense at present"),
    LimitWords("deadline", OURS, "request.deadline_s", "its answer could not be complete before its deadline"),
    LimitWords("degraded", OURS, "degradation.on", "the ladder refuses requests like it at present"),
    LimitWords("no_replica", OURS, "replica.count", "no replica may serve"),
    LimitWords("capacity", OURS, "replica.slots", "everything that could serve it is in use"),
    LimitWords("connections", OURS, "gateway.connections_max", "as many connections or descriptors are open as may be"),
)
BY_NAME = {one.name: one for one in LIMITS}


def is_ours(name: str) -> bool:
    """Whether a refusal by this limit says that we are short of something, and not that a caller took more than its own."""
    words = BY_NAME.get(name)
    return words is None or words.status == OURS
