"""Who asks: what the head of a request says, and what the gate makes of it before the body is read."""

from msgspec import Struct


class Asker(Struct):
    """The API key, the seconds that the client will wait, and for an Idempotency-Key its digest and the body's.

    `priority` is None until the gate has looked, where the request names none. The gate's glance fills in the tenant, the band
    that it gets, and who is counted when it hammers (`client`): its key, or the address of one that sends none.
    """

    key: str
    deadline_s: float = float("inf")
    idempotency: str = ""
    body_digest: bytes = b""
    priority: int | None = None
    body_bytes: int = 0
    tenant: str = ""
    client: str = ""
    never_degrade: bool = False  # it would rather have no answer than one that is less
    key_id: str = ""  # what logs may say of its key
    session: str = ""  # what it calls the answers that belong together
