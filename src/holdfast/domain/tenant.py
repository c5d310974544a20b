"""Who asks: a tenant, the limits that it has, and what the ladder may take from it."""

from msgspec import Struct

DEFAULT = "default"
PRIORITY_MIN = -10  # the least that one may be, a tenant's or a request's: each that occurs is reckoned with by itself


class Limits(Struct, frozen=True, kw_only=True):
    """What a tenant may use. 0 means no limit of its own; shares are of all replicas' slots and cache places."""

    tenant: str = DEFAULT
    weight: float = 1.0
    priority: int = 0
    requests_per_s: float = 0.0
    burst: float = 10.0
    tokens_per_min: float = 0.0
    tokens_burst: float = 0.0
    concurrency: int = 0
    memory_min: float = 0.0
    memory_max: float = 1.0

    @property
    def reserved(self) -> bool:
        """Whether memory is kept free for it: such tenants are served on every rung of the ladder."""
        return self.memory_min > 0
