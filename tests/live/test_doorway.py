"""The listening socket: lent to workers, handed back to a new supervisor, and shared fairly."""

import asyncio
import contextlib
import os
import resource
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

from holdfast.domain.ports import Child
from holdfast.gateway.accepting import ACCEPTS_MAX, Accepting
from holdfast.host.clock import MonotonicClock
from holdfast.host.doorway import LISTEN_FD, Doorway, Handover, ask, lent_listener
from holdfast.host.ports import free_ports
from holdfast.host.processes import Processes
from holdfast.store.births import Births

HOST = "127.0.0.1"


@pytest.fixture
def port() -> int:
    return free_ports(1)[0]


def test_it_is_bound_when_it_is_first_needed_and_not_before(port):
    doorway = Doorway(HOST, port)
    socket.create_server((HOST, port)).close()
    fd = doorway.fd()
    assert doorway.fd() == fd
    assert not os.get_inheritable(fd)
    with pytest.raises(OSError, match="in use"):
        socket.create_server((HOST, port))
    doorway.close()


def test_a_child_gets_it_and_its_connections_wait_while_nobody_accepts(port, tmp_path):
    code = (
        "from holdfast.host.doorway import lent_listener\n"
        "listener = lent_listener(); connection, _ = listener.accept(); connection.sendall(b'from the child')"
    )

    async def story():
        doorway = Doorway(HOST, port)
        host = Processes(Births(tmp_path), MonotonicClock(), lambda name: None)
        fd = doorway.fd()
        with socket.create_connection((HOST, port), timeout=30) as client:  # before anybody accepts
            child = Child(name="a", argv=(sys.executable, "-c", code), fds=((LISTEN_FD, fd),), epoch=3)
            sighting = await host.start(child)
            assert sighting.epoch == 3
            assert (await asyncio.to_thread(client.recv, 100)) == b"from the child"
        assert [birth.epoch for birth in Births(tmp_path).read()] == [3]
        await host.stop("a", 0)
        host.close()
        doorway.close()

    asyncio.run(story())


def test_a_living_worker_hands_it_back(port, tmp_path):
    async def story():
        lent = Doorway(HOST, port)
        handover = Handover(tmp_path / "gateway-0.fd", socket.socket(fileno=os.dup(lent.fd())))
        lent.close()
        fresh = Doorway(HOST, port)
        paths = [tmp_path / "nobody.fd", tmp_path / "gateway-0.fd"]
        assert await asyncio.to_thread(fresh.recover, "", paths)
        handover.close()
        with socket.create_connection((HOST, port), timeout=5):
            fresh.close()
        assert not (tmp_path / "gateway-0.fd").exists()

    asyncio.run(story())


def test_one_that_listens_elsewhere_is_not_taken(port, tmp_path):
    async def story():
        lent = Doorway(HOST, port)
        handover = Handover(tmp_path / "gateway-0.fd", socket.socket(fileno=os.dup(lent.fd())))
        fresh = Doorway(HOST, free_ports(1)[0])
        assert not await asyncio.to_thread(fresh.recover, "", [tmp_path / "gateway-0.fd"])
        handover.close()
        lent.close()

    asyncio.run(story())


def test_a_frozen_worker_is_not_waited_for(tmp_path):
    path = tmp_path / "gateway-0.fd"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as frozen:
        frozen.bind(str(path))
        frozen.listen(1)
        assert ask(path) is None


def test_it_lives_through_an_exec(port):
    code = (
        "import os, sys; from holdfast.host.doorway import Doorway\n"
        f"doorway = Doorway('{HOST}', {port}); handed = os.environ.pop('HANDED_ON', '')\n"
        "if not handed:\n"
        "    doorway.fd(); os.environ['HANDED_ON'] = doorway.hand_on()\n"
        "    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])\n"
        "print(doorway.recover(handed, []), os.get_inheritable(doorway.fd()), flush=True); sys.stdin.read()"
    )
    argv = [sys.executable, "-c", code]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "True False\n"
        with socket.create_connection((HOST, port), timeout=5):
            other.kill()


def test_what_is_no_listening_socket_is_refused(port):
    with socket.socket() as plain:
        doorway = Doorway(HOST, port)
        assert not doorway.recover(str(os.dup(plain.fileno())), [])
    assert not Doorway(HOST, port).recover("987654", [])
    assert lent_listener() is None


class Greeter(asyncio.Protocol):
    """Takes down who accepted."""

    def __init__(self, name: str, accepted: list[str]) -> None:
        self._name, self._accepted = name, accepted

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._accepted.append(self._name)
        transport.write(self._name.encode())


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_burst_is_taken_a_few_at_a_time(port, factory):
    async def story():
        accepted: list[str] = []
        doorway = Doorway(HOST, port)
        fd = doorway.fd()
        clients = [socket.create_connection((HOST, port), timeout=5) for _ in range(3 * ACCEPTS_MAX)]
        doors = [
            Accepting(socket.socket(fileno=os.dup(fd)), lambda name=name: Greeter(name, accepted)) for name in "ab"
        ]
        said = [await asyncio.to_thread(client.recv, 1) for client in clients]
        assert sorted({word.decode() for word in said}) == ["a", "b"], "one took everything"
        assert sorted(accepted) == sorted(word.decode() for word in said)
        doors[0].close()
        doors[0].look()
        with socket.create_connection((HOST, port), timeout=5) as late:
            assert await asyncio.to_thread(late.recv, 1) == b"b"
        doors[1].close()
        doorway.close()
        for client in clients:
            client.close()

    with asyncio.Runner(loop_factory=factory) as runner:
        runner.run(story())


@contextlib.contextmanager
def no_descriptors():
    """Inside, this process can open nothing more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest + 1, hard))
    held = []
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        yield
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_one_without_descriptors_looks_away_and_tries_again(port):
    async def story():
        accepted: list[str] = []
        doorway = Doorway(HOST, port)
        listener = socket.socket(fileno=os.dup(doorway.fd()))
        with socket.create_connection((HOST, port), timeout=5) as client:
            door = Accepting(listener, lambda: Greeter("a", accepted))
            with no_descriptors():
                for _ in range(5):
                    await asyncio.sleep(0)
            for _ in range(5):
                await asyncio.sleep(0)
            assert accepted == [], "it did not look away: its loop would turn without rest"
            door.look()
            assert await asyncio.to_thread(client.recv, 1) == b"a"
            door.close()
            doorway.close()

    asyncio.run(story())
