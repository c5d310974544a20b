"""The door's question to strangers, asked before a body is parsed."""

import pytest

from holdfast.domain.fault import BadRequest, Forbidden, Unauthorised
from holdfast.domain.key import KeyEntry, Scope, digest_of, spell_key
from holdfast.gateway.identify import screen, screen_metrics
from holdfast.gateway.tenants import Tenants

SALT = b"s" * 32
KEY, OTHER = spell_key(7, 7**80), spell_key(8, 8**80)


def kept(key: str, *scopes: Scope, tenant: str = "acme") -> KeyEntry:
    return KeyEntry(id=key[5:15], name="n", tenant=tenant, scopes=scopes, digest=digest_of(key, SALT), made_unix_s=1.0)


def test_without_keys_nobody_is_asked():
    screen(Tenants())("", 0)
    screen(Tenants())("whatever", 0)
    screen_metrics(Tenants(), True)("")


def test_a_stranger_is_told_what_to_send_and_a_friend_passes():
    ask = screen(Tenants(keys={"right": "default", "also right": "default"}))
    ask("right", 10)
    with pytest.raises(Unauthorised, match="no API key was sent: send it in the header"):
        ask("", 10)
    with pytest.raises(Unauthorised, match="the API key is not known here"):
        ask("wrong", 10)


def test_a_key_of_the_ring_means_its_tenant_whether_or_not_the_settings_know_it():
    tenants = Tenants()
    tenants.take(SALT, [kept(KEY, Scope.CHAT)], closed=True)
    holder = tenants.holder_of(KEY)
    assert (holder.limits.tenant, holder.id) == ("acme", KEY[5:15])
    assert tenants.named("acme").tenant == "acme"
    for stranger in (OTHER, "", "right"):
        with pytest.raises(Unauthorised):
            tenants.holder_of(stranger)


def test_the_same_id_with_another_secret_is_a_stranger():
    tenants = Tenants()
    tenants.take(SALT, [kept(KEY, Scope.CHAT)], closed=True)
    with pytest.raises(Unauthorised, match="is not known here"):
        tenants.holder_of(spell_key(7, 7**79))


@pytest.mark.parametrize("at", range(5, len(KEY)))
def test_one_wrong_letter_anywhere_is_told_as_a_slip(at: int) -> None:
    tenants = Tenants()
    tenants.take(SALT, [kept(KEY, Scope.CHAT)], closed=True)
    wrong = KEY[:at] + ("x" if KEY[at] != "x" else "y") + KEY[at + 1 :]
    with pytest.raises(Unauthorised, match="the API key is mistyped"):
        tenants.holder_of(wrong)


def test_a_key_opens_what_its_scopes_say_and_nothing_else():
    tenants = Tenants()
    tenants.take(SALT, [kept(KEY, Scope.METRICS), kept(OTHER, Scope.CHAT)], closed=True)
    screen_metrics(tenants, True)(KEY)
    with pytest.raises(Forbidden, match="this key opens metrics, not chat"):
        screen(tenants)(KEY, 0)
    with pytest.raises(Forbidden, match="this key opens chat, not metrics"):
        screen_metrics(tenants, True)(OTHER)
    with pytest.raises(BadRequest, match="they are at the control plane's address"):
        screen_metrics(tenants, False)(KEY)


def test_keys_of_the_settings_go_on_beside_those_of_the_ring():
    tenants = Tenants(keys={"front": "default", "old": "default"}, keyless=False, operator="front")
    tenants.take(SALT, [kept(KEY, Scope.CHAT)], closed=True)
    assert tenants.holder_of("old").limits.tenant == "default"
    screen_metrics(tenants, True)("front")
    with pytest.raises(Forbidden):
        screen_metrics(tenants, True)("old")
    tenants.take(SALT, [], closed=True)
    assert tenants.holder_of("front").id == "[gateway]"
    with pytest.raises(Unauthorised):
        tenants.holder_of(KEY)
