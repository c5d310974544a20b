"""What the head of a request for an answer says: who asks, how long they wait, and whether they come back."""

from hashlib import blake2b

from holdfast.domain.fault import BadRequest
from holdfast.domain.tenant import PRIORITY_MIN
from holdfast.gateway.asker import Asker
from holdfast.gateway.incoming import Request
from holdfast.gateway.journal import digest_of_key
from holdfast.gateway.pages import bearer

KEY_BYTES_MAX = 255


def asker(request: Request, limit_s: float) -> Asker:
    """Who asks, and how long they will wait: at most `limit_s`.

    Raises:
        BadRequest: a header of ours says what it can't, or the Idempotency-Key is none.
    """
    who = Asker(bearer(request), limit_s, body_bytes=len(request.body))
    said = request.headers.get(b"x-holdfast-deadline-s")
    if said is not None:
        try:
            seconds = float(said)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            raise BadRequest("x-holdfast-deadline-s must be a number of seconds above 0.", "x-holdfast-deadline-s")
        who.deadline_s = min(seconds, limit_s)
    band = request.headers.get(b"x-holdfast-priority")
    if band is not None:
        who.priority = max(_whole_number(band), PRIORITY_MIN)
    never = request.headers.get(b"x-holdfast-degrade")
    if never is not None and never.lower() != b"never":
        raise BadRequest("x-holdfast-degrade may be `never`, or be left out.", "x-holdfast-degrade")
    who.never_degrade = never is not None
    who.session = request.headers.get(b"x-holdfast-session", b"").decode("latin-1")
    mark = request.headers.get(b"idempotency-key")
    if mark is None:
        return who
    if not 0 < len(mark) <= KEY_BYTES_MAX or any(not 33 <= byte <= 126 for byte in mark):
        why = f"Idempotency-Key must be 1 to {KEY_BYTES_MAX} visible ASCII characters."
        raise BadRequest(why, "idempotency-key")
    who.idempotency = blake2b(mark, digest_size=16, key=digest_of_key(who.key)).hexdigest()
    who.body_digest = blake2b(request.body, digest_size=16).digest()
    return who


def _whole_number(said: bytes) -> int:
    try:
        return int(said)
    except ValueError:
        why = "x-holdfast-priority must be a whole number; it can only lower the tenant's own."
        raise BadRequest(why, "x-holdfast-priority") from None


def wants_resume(request: Request) -> bool:
    """Whether the client says that it comes back for its answer when the connection is lost."""
    headers = request.headers
    return headers.get(b"x-holdfast-resume", b"").lower() == b"yes" or b"idempotency-key" in headers
