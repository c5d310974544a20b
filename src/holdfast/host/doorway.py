"""The doorway: the one listening socket of a site's API, which belongs to the supervisor and is lent to every worker.

All workers accept from the same queue. So a worker that dies takes no connection with it that it had not accepted, one that is
frozen keeps none waiting that another could take, and between a death and the next start the queue itself waits. The kernel
keeps the socket open as long as anybody holds it: a supervisor that was killed finds it again at any living worker, which hands
it back over a unix socket (unix(7), SCM_RIGHTS), and one that renews itself carries it through its own exec.
"""

import array
import asyncio
import contextlib
import os
import socket
from collections.abc import Iterable
from pathlib import Path

LISTEN_FD = "HOLDFAST_LISTEN_FD"  # where a worker, or a renewed supervisor, finds the descriptor's number
BACKLOG = 65535  # the kernel cuts it down to net.core.somaxconn
ASK_S = 0.5  # a worker that does not answer within this is frozen or gone


class Doorway:
    """The listening socket at (host, port): recovered, or bound when it is first needed."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._listener: socket.socket | None = None

    def recover(self, handed_on: str, handovers: Iterable[Path]) -> bool:
        """Get the socket back: from an earlier image of this process, or from a living worker. Returns whether it is here."""
        if handed_on.isdigit():
            self._take(_adopt(int(handed_on)))
        for path in handovers:
            if self._listener is None:
                self._take(ask(path))
        return self._listener is not None

    def fd(self) -> int:
        """The descriptor, to be lent to a child. Raises OSError: the address can't be had."""
        if self._listener is None:
            self._listener = _bind(self._host, self._port)
        return self._listener.fileno()

    def hand_on(self) -> str:
        """Let the socket live through an exec of this process; empty when there is none yet."""
        if self._listener is None:
            return ""
        self._listener.set_inheritable(True)
        return str(self._listener.fileno())

    def keep(self) -> None:
        """There was no exec after all."""
        if self._listener is not None:
            self._listener.set_inheritable(False)

    def close(self) -> None:
        """Let go; those who hold it too go on listening."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def _take(self, found: socket.socket | None) -> None:
        """Keep it if it listens where we want to; an address that was changed in the settings is bound anew."""
        if found is None:
            return
        if _listens_at(found, self._host, self._port):
            self._listener = found
        else:
            found.close()


class Handover:
    """A worker's side: whoever connects to the path gets the listening socket. Inside a running loop."""

    def __init__(self, path: Path, listener: socket.socket) -> None:
        """Raises OSError: the path can't be had."""
        self._path, self._lent = path, listener
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(str(path))
            path.chmod(0o600)
            self._socket.listen(8)
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise
        asyncio.get_running_loop().add_reader(self._socket, self._give)

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._path.unlink(missing_ok=True)

    def _give(self) -> None:
        try:
            asker, _ = self._socket.accept()
        except OSError:
            return
        with asker, contextlib.suppress(OSError):
            socket.send_fds(asker, [b"."], [self._lent.fileno()])


def ask(path: Path) -> socket.socket | None:
    """The listening socket that a worker hands back there; None when nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asker:
        asker.settimeout(ASK_S)
        try:
            asker.connect(str(path))
            _, fds, _, _ = socket.recv_fds(asker, 1, array.array("i").itemsize)
        except OSError:
            return None
    return _adopt(fds[0]) if fds else None


def _adopt(fd: int) -> socket.socket | None:
    """The socket behind a descriptor number, not to be inherited; None when it is no listening one."""
    try:
        found = socket.socket(fileno=fd)
        found.set_inheritable(False)
        if found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return found
        found.close()
    except OSError:
        return None
    return None


def _bind(host: str, port: int) -> socket.socket:
    if not host and socket.has_dualstack_ipv6():
        return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=BACKLOG)
    family, _, _, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
        0
    ]
    return socket.create_server(address[:2], family=family, backlog=BACKLOG)


def _listens_at(listener: socket.socket, host: str, port: int) -> bool:
    there = listener.getsockname()
    if there[1] != port:
        return False
    if not host:
        return there[0] in ("::", "0.0.0.0")
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return bool(found) and found[0][4][0] == there[0]


def lent_listener() -> socket.socket | None:
    """The listening socket that the supervisor lent to this process; None where nobody did."""
    number = os.environ.get(LISTEN_FD, "")
    return _adopt(int(number)) if number.isdigit() else None
