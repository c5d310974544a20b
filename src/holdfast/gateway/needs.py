"""What the front door is built from: everything it can't make itself, handed in once."""

import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property

from msgspec import Struct
from prometheus_client import CollectorRegistry

from holdfast.domain.dialect import Dialect
from holdfast.domain.event import Emit
from holdfast.domain.ports import Clock
from holdfast.domain.release import Exactness, Release
from holdfast.domain.request import Sampling
from holdfast.gateway.access import Access
from holdfast.gateway.asker import Asker
from holdfast.gateway.degrade import Degrader
from holdfast.gateway.service import Service
from holdfast.gateway.streams import Streams


class Limits(Struct, frozen=True, kw_only=True):
    """What one client, or all of them, may take. Told in docs/front-door.md; seconds are absolute."""

    head_bytes_max: int = 64 * 1024
    body_bytes_max: int = 4 * 1024 * 1024
    head_s: float = 10.0  # first byte of a head to its end; trickling does not extend it
    body_s: float = 30.0  # end of the head to the end of the body
    headers_max: int = 100
    json_depth_max: int = 32
    json_nodes_max: int = 100_000
    bytes_per_s_min: float = 1024.0  # a body comes, and an answer is taken, at this pace at least
    rate_grace_s: float = 5.0  # ... after so long
    idle_s: float = 75.0  # an open connection without a request
    stall_s: float = 60.0  # a client that does not read is cut after this
    deadline_s: float = float("inf")  # for a whole answer; x-holdfast-deadline-s may only shorten it
    connections_max: int = 4096
    connections_per_address_max: int = 2048  # 0: no limit; likewise the next
    connections_per_key_max: int = 2048
    keep_s: float = 3600.0  # an older connection is told to close
    pipelined_max: int = 32
    large_text_bytes: int = 16 * 1024  # prompts from here on are tokenised in a thread
    stream_bytes_max: int = 64 * 1024  # unread by one client: its answer waits beyond that
    buffers_bytes_max: int = 256 * 1024 * 1024  # unread by all clients: beyond that the slowest are cut
    descriptors_share: float = 0.8  # of the descriptor limit; beyond that new connections are refused


class ModelCard(Struct, frozen=True, kw_only=True, dict=True):
    """The model behind the door, as clients see it."""

    name: str
    digest: str = ""  # the release's; system_fingerprint is made of it
    kinds: tuple[Release, ...] = ()  # releases that may serve a request: it is promised what the weakest of them keeps
    context_tokens_max: int = 4096
    max_tokens_default: int = 8192  # capped by what the context leaves
    created_unix_s: int = 0
    aliases: tuple[tuple[str, bool], ...] = (("deepseek-chat", False), ("deepseek-reasoner", True))  # name, thinking
    thinking_default: bool = False  # for the model's own name

    @cached_property
    def exactness(self) -> Exactness:
        """The weakest of its kinds'. Every request's note tells it."""
        return max((one.exactness for one in self.kinds), key=list(Exactness).index, default=Exactness.FAIR)


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """Dependencies of a Door.

    service: the whole stack of layers. contract: `holdfast.policy.continuation.promise`. ready: may traffic come, and the
    why. unix_s: wall-clock seconds, for `created` and `Date`. bits: `Random(...).getrandbits`, for seeds and request ids.
    screen: called with (key, body bytes) before anything is decoded or tokenised; raises a Fault to refuse cheaply.
    screen_metrics: likewise, with the key of who asks for the metrics.
    access: the access log; None: there is none.
    glance: the gate's look at a request for an answer, likewise; it takes its rate and writes down who asks. None: no gate.
    streams: what outlives this worker; None: nothing does. linger_s: how long an answer that can be resumed goes on without a
    reader. descriptors: how many file descriptors are open, and how many may be. degrader: None: nothing is ever given up.
    cors: origins whose web pages may ask. takes_anybody: whether this key, or none, is not asked about; then no other web page
    may. tls: what new connections are met with; None: nothing is encrypted.
    stands_in: the name of the smaller model, where these are its needs.
    """

    service: Service
    dialect: Dialect
    card: Callable[[], ModelCard]
    contract: Callable[[Sampling, tuple[Release, ...]], tuple[str, str]]
    ready: Callable[[], tuple[bool, str]]
    clock: Clock
    unix_s: Callable[[], float]
    bits: Callable[[int], int]
    emit: Emit
    limits: Limits = field(default_factory=Limits)
    registry: CollectorRegistry = field(default_factory=CollectorRegistry)
    screen: Callable[[str, int], None] | None = None
    screen_metrics: Callable[[str], None] = lambda key: None
    access: Access | None = None
    glance: Callable[[Asker, str], None] | None = None
    streams: Streams | None = None
    linger_s: float = 10.0
    descriptors: Callable[[], tuple[int, int]] | None = None
    degrader: Degrader | None = None
    smaller: "Smaller | None" = None
    stands_in: str = ""
    cors: tuple[str, ...] = ()
    takes_anybody: Callable[[str], bool] = lambda key: False
    tls: Callable[[], ssl.SSLContext] | None = None


@dataclass(frozen=True, slots=True)
class Smaller:
    """A smaller model beside the site's own: its needs (`stands_in` is its name), and whether it takes a request now."""

    needs: Needs
    takes: Callable[[Asker], bool]
