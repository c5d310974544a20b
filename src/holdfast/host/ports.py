"""TCP ports: which are free, and can one be had? Asked before anything is started: a sentence is better than a dead child."""

import errno
import socket
from contextlib import ExitStack


def complaint(host: str, port: int) -> str:
    """Why nobody could listen there now, as half a sentence; empty when one could."""
    try:
        family, kind, proto, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, proto) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return "is taken by another program"
        return f"can't be had: {error.strerror}"
    return ""


def free_ports(count: int) -> tuple[int, ...]:
    """TCP ports of the loopback that nobody listens on now, all different."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return tuple(one.getsockname()[1] for one in sockets)
