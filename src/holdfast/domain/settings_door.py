"""The settings of the front door: where it is, what one connection or request may cost, and how it is locked.

What is told to whoever meets one of these limits stands in docs/front-door.md.
"""

from typing import Annotated

from msgspec import Meta, Struct

from holdfast.domain.settings_kinds import Port, Seconds


class Gateway(Struct, frozen=True, forbid_unknown_fields=True):
    """The address that clients speak to, and what one connection may cost."""

    host: Annotated[
        str, Meta(description="Address to listen on. `0.0.0.0` opens it to the network: set a key too.")
    ] = "127.0.0.1"
    port: Annotated[Port, Meta(description="TCP port of the API.")] = 8000
    workers: Annotated[int, Meta(ge=1, le=128, description="Gateway processes; they share the port.")] = 1
    key: Annotated[
        str, Meta(description="API key that clients must send as a bearer token. Empty: none is asked for.")
    ] = ""
    open: Annotated[
        bool,
        Meta(
            description="Serve anybody who reaches an address beyond this machine, with no key at all. Refused without."
        ),
    ] = False
    metrics: Annotated[
        bool,
        Meta(
            description="Whether `/metrics` is answered at this address too, to a key with the scope `metrics` where keys are "
            "asked for. The control plane always has them."
        ),
    ] = True
    access_log: Annotated[
        bool,
        Meta(
            description="Whether each request leaves a line in `log/NAME.access.jsonl`: never a word of it, never its key."
        ),
    ] = False
    body_bytes_max: Annotated[int, Meta(ge=1024, description="Largest request body, in bytes.")] = 4 * 1024 * 1024
    header_bytes_max: Annotated[int, Meta(ge=1024, description="Largest request head, in bytes.")] = 64 * 1024
    header_s: Annotated[Seconds, Meta(description="A request head must be complete within so many seconds.")] = 10.0
    body_s: Annotated[Seconds, Meta(description="A request body must be complete within so many seconds.")] = 30.0
    unread_s: Annotated[
        Seconds, Meta(description="A client that reads nothing of its answer for so many seconds is disconnected.")
    ] = 60.0
    bytes_per_s_min: Annotated[
        float,
        Meta(
            ge=0,
            description="A body must come at so many bytes a second at least once `rate_grace_s` are over, and what lies "
            "ready of an answer must be taken at that pace over `unread_s`. 0: only the deadlines count.",
        ),
    ] = 1024.0
    rate_grace_s: Annotated[Seconds, Meta(description="A body's pace is not looked at for so many seconds.")] = 5.0
    headers_max: Annotated[int, Meta(ge=8, le=10_000, description="Header lines of one request.")] = 100
    json_depth_max: Annotated[
        int, Meta(ge=8, le=200, description="How deep lists and objects may be nested in a request body.")
    ] = 32
    json_nodes_max: Annotated[
        int, Meta(ge=1000, description="Values that a request body may hold: numbers, strings, keys, lists, objects.")
    ] = 100_000
    idle_s: Annotated[Seconds, Meta(description="An idle keep-alive connection is closed after so many seconds.")] = (
        75.0
    )
    connections_max: Annotated[int, Meta(ge=1, description="Open client connections of one worker.")] = 4096
    connections_per_address_max: Annotated[
        int,
        Meta(
            ge=0,
            description="Of them, those from one IP address. Raise it, or set 0 for no limit, where a proxy stands in front "
            "of Holdfast.",
        ),
    ] = 2048
    connections_per_key_max: Annotated[
        int, Meta(ge=0, description="Of them, those whose requests come with the same API key. 0: no limit.")
    ] = 2048
    keep_s: Annotated[
        Seconds, Meta(description="A connection that is older is told to close with its next answer.")
    ] = 3600.0
    cors_origins: Annotated[
        tuple[str, ...],
        Meta(
            description="Origins whose web pages may ask, such as `https://chat.example.org`; `*` means all. Empty: browsers "
            "keep other sites' pages away."
        ),
    ] = ()
    tls_cert: Annotated[
        str,
        Meta(
            description="PEM file with the certificate and those between it and its root. With it the API is served over TLS "
            "only. It is read again when it changes."
        ),
    ] = ""
    tls_key: Annotated[str, Meta(description="PEM file with the key of that certificate.")] = ""
    tls_client_ca: Annotated[
        str, Meta(description="PEM file of roots: clients must then show a certificate that one of them has signed.")
    ] = ""
    drain_s: Annotated[
        Seconds, Meta(description="A worker that is told to leave finishes its answers for at most so many seconds.")
    ] = 30.0

    @property
    def url(self) -> str:
        """The address that clients on this machine use."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)
        scheme = "https" if self.tls_cert else "http"
        return f"{scheme}://[{host}]:{self.port}/v1" if ":" in host else f"{scheme}://{host}:{self.port}/v1"
