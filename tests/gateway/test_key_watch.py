"""Keys that come and go while a worker serves."""

import pytest
from msgspec import structs

from holdfast.domain.event import Event, KeysChanged, KeysStale
from holdfast.domain.fault import Unauthorised
from holdfast.domain.key import KeyRing, Looked, spell_key
from holdfast.gateway.keys import KeyWatch
from holdfast.gateway.tenants import Tenants
from holdfast.policy import key_ring
from holdfast.policy.key_ring import Changed, Wanted

KEY = spell_key(7, 7**80)
SALT = b"s" * 32


class Scene:
    """A watch, what it finds, the time, and what it tells."""

    def __init__(self, unkeyed: bool = True) -> None:
        self.looked, self.now = Looked(None), 1000.0
        self.told: list[Event] = []
        self.tenants = Tenants()
        self.watch = KeyWatch(self.tenants, lambda: self.looked, lambda: self.now, self.told.append, unkeyed)
        self.watch.look()

    def sees(self, ring: KeyRing | None, why: str = "") -> None:
        self.looked = Looked(ring, why)
        self.watch.look()

    def opens(self, key: str = KEY) -> bool:
        try:
            self.tenants.holder_of(key)
        except Unauthorised:
            return False
        return True


def ring_with(until_unix_s: float = 0.0) -> KeyRing:
    wanted = Wanted(name="alice", tenant="acme", until_unix_s=until_unix_s)
    made = key_ring.create(KeyRing(salt=SALT), wanted, KEY, 1000.0)
    assert isinstance(made, Changed)
    return made.ring


def revoked(ring: KeyRing, at: float = 1001.0) -> KeyRing:
    made = key_ring.revoke(ring, KEY[5:15], at)
    assert isinstance(made, Changed)
    return made.ring


def test_the_first_key_locks_the_door_and_the_last_one_leaves_it_locked():
    scene = Scene()
    assert scene.opens("")
    scene.sees(ring_with())
    assert scene.opens() and not scene.opens("")
    scene.sees(revoked(ring_with()))
    assert not scene.opens() and not scene.opens("")
    assert [type(one) for one in scene.told] == [KeysChanged, KeysChanged]
    assert scene.told[-1].why == "0 keys of the ring are live"


def test_a_key_expires_by_itself():
    scene = Scene()
    scene.sees(ring_with(until_unix_s=2000.0))
    assert scene.opens()
    scene.now = 2000.0
    scene.watch.look()
    assert not scene.opens()


@pytest.mark.parametrize("why", ["the key file is damaged", ""])
def test_a_ring_that_is_lost_goes_on_to_hold_and_is_told_once(why: str) -> None:
    scene = Scene()
    scene.sees(ring_with())
    scene.sees(None, why)
    scene.sees(None, why)
    assert scene.opens() and not scene.opens("")
    stale = [one for one in scene.told if isinstance(one, KeysStale)]
    assert len(stale) == 1
    assert stale[0].why.endswith("go on to hold")


def test_a_copy_of_before_brings_no_key_back():
    scene, before = Scene(), ring_with()
    scene.sees(before)
    after = revoked(before)
    scene.sees(after)
    scene.sees(before)
    assert not scene.opens()
    assert "older than" in scene.told[-1].why
    scene.sees(structs.replace(after, version=after.version + 1))
    assert not scene.opens()


def test_a_worker_that_finds_a_damaged_ring_lets_nobody_in():
    scene = Scene()
    scene.sees(None, "the key file is damaged")
    assert not scene.opens("") and not scene.opens()
    assert scene.told[-1].why == "the key file is damaged; nobody is let in by a key of it"
    scene.sees(ring_with())
    assert scene.opens()


def test_beyond_this_machine_no_key_means_no_entry():
    assert not Scene(unkeyed=False).opens("")
