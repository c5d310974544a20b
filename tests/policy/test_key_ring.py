"""Keys: what is made of a ring, and what is denied."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from holdfast.domain.key import FORM, ID_BITS, SECRET_BITS, KeyRing, Scope, complaint_of, digest_of, spell_key
from holdfast.policy.key_ring import KEPT_DEAD_S, Changed, Denied, Wanted, create, revoke, rotate

EMPTY = KeyRing(salt=b"s" * 32)
ONE, TWO, THREE = spell_key(1, 11), spell_key(2, 22), spell_key(3, 33)


def made(verdict: Changed | Denied) -> KeyRing:
    assert isinstance(verdict, Changed), verdict
    return verdict.ring


def denied(verdict: Changed | Denied) -> str:
    assert isinstance(verdict, Denied), verdict
    return verdict.why


def alice(at: float = 100.0, until: float = 0.0) -> KeyRing:
    return made(create(EMPTY, Wanted(name="alice", tenant="acme", until_unix_s=until), ONE, at))


def live(ring: KeyRing, at: float) -> list[str]:
    return [one.id for one in ring.keys if one.live(at)]


@given(st.integers(0, 2**ID_BITS - 1), st.integers(0, 2**SECRET_BITS - 1))
def test_every_key_has_the_form_that_scanners_look_for_and_a_right_checksum(id_bits: int, secret_bits: int) -> None:
    key = spell_key(id_bits, secret_bits)
    assert FORM.fullmatch(key)
    assert complaint_of(key) == ""


@given(st.integers(0, 2**SECRET_BITS - 1), st.integers(5, 64), st.sampled_from("0aZ_-"))
def test_any_one_wrong_letter_is_found(secret_bits: int, at: int, letter: str) -> None:
    key = spell_key(5, secret_bits)
    wrong = key[:at] + letter + key[at + 1 :]
    assert wrong == key or complaint_of(wrong).startswith("the API key is mistyped")


def test_the_largest_numbers_fit():
    assert len(spell_key(2**ID_BITS - 1, 2**SECRET_BITS - 1)) == len(ONE) == 65


def test_what_is_kept_is_a_digest_and_never_the_key():
    entry = alice().keys[0]
    assert entry.digest == digest_of(ONE, EMPTY.salt)
    assert ONE[16:59].encode() not in repr(entry).encode()


def test_a_name_is_made_once_and_rotated_after_that():
    assert denied(create(alice(), Wanted(name="alice", tenant="acme"), TWO, 101.0)) == (
        "alice has a key already: holdfast key rotate alice makes the next one"
    )
    assert denied(rotate(EMPTY, "alice", TWO, 60.0, 101.0)) == "alice has no live key: holdfast key create alice"


@pytest.mark.parametrize("name", ["", "two words", "-x", "a" * 65])
def test_names_are_plain(name: str) -> None:
    assert "is no name for a key" in denied(create(EMPTY, Wanted(name=name, tenant="acme"), ONE, 1.0))


def test_tenants_are_named_as_in_the_settings():
    assert "is no tenant" in denied(create(EMPTY, Wanted(name="a", tenant="Two Words"), ONE, 1.0))


def test_a_rotation_leaves_two_for_a_grace_and_never_three():
    ring = made(rotate(alice(), "alice", TWO, 60.0, 200.0))
    assert live(ring, 259.9) == [ONE[5:15], TWO[5:15]]
    assert live(ring, 260.0) == [TWO[5:15]]
    assert denied(rotate(ring, "alice", THREE, 60.0, 201.0)) == (
        f"alice has two live keys already: revoke one of them first (holdfast key revoke {ONE[5:15]} or {TWO[5:15]})"
    )
    assert live(made(rotate(ring, "alice", THREE, 60.0, 300.0)), 301.0) == [TWO[5:15], THREE[5:15]]


def test_a_rotation_keeps_rights_and_span_and_lengthens_no_life():
    first = made(create(EMPTY, Wanted(name="m", tenant="t", scopes=(Scope.METRICS,), until_unix_s=150.0), ONE, 100.0))
    old, new = made(rotate(first, "m", TWO, 1000.0, 140.0)).keys
    assert old.until_unix_s == 150.0
    assert (new.tenant, new.scopes, new.until_unix_s) == ("t", (Scope.METRICS,), 190.0)


def test_revoking_is_for_good_by_id_or_for_a_whole_name():
    ring = made(rotate(alice(), "alice", TWO, 60.0, 200.0))
    assert live(made(revoke(ring, ONE[5:15], 201.0)), 202.0) == [TWO[5:15]]
    gone = made(revoke(ring, "alice", 201.0))
    assert live(gone, 202.0) == []
    assert denied(revoke(gone, "alice", 203.0)) == "alice is revoked already"
    assert denied(revoke(gone, "bob", 203.0)) == "there is no key bob: holdfast key list"


def test_versions_only_rise_even_when_the_clock_goes_back():
    first = alice(at=1000.0)
    later = made(revoke(first, "alice", 10.0))
    assert later.version == first.version + 1
    assert alice(at=2000.0).version > later.version


def test_the_dead_are_forgotten_after_a_year():
    ring = made(revoke(alice(), "alice", 101.0))
    more = Wanted(name="bob", tenant="acme")
    assert len(made(create(ring, more, TWO, 101.0 + KEPT_DEAD_S - 1)).keys) == 2
    assert len(made(create(ring, more, TWO, 101.0 + KEPT_DEAD_S + 1)).keys) == 1


def test_what_would_have_expired_is_not_made():
    assert "expired already" in denied(create(EMPTY, Wanted(name="a", tenant="t", until_unix_s=1.0), ONE, 2.0))


def test_a_key_says_nothing_of_its_secret_in_its_id():
    assert re.fullmatch(r"[0-9A-Za-z]{10}", structs.asdict(alice().keys[0])["id"])
