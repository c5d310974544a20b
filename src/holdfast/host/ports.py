"""TCP ports: can one be had? Asked before anything is started, so that the answer is a sentence and not a dead child."""

import errno
import socket


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
