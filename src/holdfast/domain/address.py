"""Addresses of replicas and listeners, as people write them: unix:/run/holdfast/replica-0.sock or 127.0.0.1:7301."""

import re

from msgspec import Struct

# as a browser writes whom it asks: an address, or the name that is this machine by definition; no name that an attacker's
# server could first say to be here after the page has come from there
UNBENDING = re.compile(r"(?:localhost|[\d.]+|\[[0-9a-f:.]+\])(?::\d+)?", re.IGNORECASE)
LOOPBACK = re.compile(r"localhost|::1|127(\.\d{1,3}){3}")


class UnixAddress(Struct, frozen=True):
    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


class TcpAddress(Struct, frozen=True):
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> UnixAddress | TcpAddress:
    """Read an address; IPv6 hosts stand in brackets.

    Raises:
        ValueError: neither form; the sentence names the text and both forms.
    """
    if text.startswith("unix:") and len(text) > len("unix:"):
        return UnixAddress(text.removeprefix("unix:"))
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if colon and host and host != "unix" and port.isascii() and port.isdigit() and int(port) <= 65535:
        return TcpAddress(host, int(port))
    raise ValueError(f"{text!r} is not an address: write unix:/path/to.sock or host:port, such as 127.0.0.1:7301")


def is_loopback(host: str) -> bool:
    """Whether only this machine can speak to who listens there. What is written in another way is taken for open to others."""
    return LOOPBACK.fullmatch(host) is not None


def is_unbending(said: str) -> bool:
    """Whether a Host header names an address, or localhost: no name that whoever owns it could make mean this machine."""
    return UNBENDING.fullmatch(said) is not None
