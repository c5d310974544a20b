"""Taking an address: a stale unix socket file is replaced, one that somebody answers on is never."""

import contextlib
import socket
import stat
import struct
from pathlib import Path

from holdfast.domain.address import TcpAddress, UnixAddress

BACKLOG = 128


def claim(address: UnixAddress | TcpAddress) -> socket.socket:
    """A bound, listening, non-blocking socket. A unix socket is for its owner only (mode 0600).

    Raises:
        OSError: the address is in use, by whom if that can be told, or can't be had.
    """
    try:
        return _claim_unix(Path(address.path)) if isinstance(address, UnixAddress) else _claim_tcp(address)
    except OSError as error:
        raise OSError(f"can't listen at {address}: {error.strerror or error}") from error


def address_of(listener: socket.socket) -> str:
    """The address that clients write, with the real port."""
    name = listener.getsockname()
    return str(UnixAddress(name) if listener.family == socket.AF_UNIX else TcpAddress(name[0], name[1]))


def _claim_tcp(address: TcpAddress) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _claim_unix(path: Path) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise OSError("there is a file of that name that is no socket; move it away or choose another path")
        holder = _who_answers(path)
        if holder:
            raise OSError(f"address in use by {holder}")
        path.unlink()
    path.parent.mkdir(parents=True, exist_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listener.bind(str(path))
        path.chmod(0o600)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)
    return listener


def _who_answers(path: Path) -> str:
    """Who listens on a socket file, in words; empty if nobody does. The kernel knows the listener's pid (unix(7))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as visitor:
        visitor.settimeout(1.0)
        try:
            visitor.connect(str(path))
        except ConnectionRefusedError:
            return ""
        except (TimeoutError, BlockingIOError):  # its queue of connections is full: somebody holds it, and is stuck
            return "a process that does not answer"
        pid, _, _ = struct.unpack("3i", visitor.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        return f"process {pid}"
