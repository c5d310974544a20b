"""Tenants: whose key is this, and what may they use?

Keys come from the settings and from the site's key ring (`holdfast key`), which gateway/keys.py brings here. All are known by a
digest that is keyed with a secret of this site, and one of the ring is looked up by its id first: nobody outside can choose
what is compared, so the time that it takes tells nothing about the keys that exist. Without any key nobody is asked for one
(the gateway listens on loopback only, by default).
"""

import hmac
import os
from collections.abc import Iterable, Mapping

from msgspec import Struct, structs

from holdfast.domain.fault import Forbidden, Unauthorised
from holdfast.domain.key import ID, PREFIX, SALT_BYTES, KeyEntry, Scope, complaint_of, digest_of
from holdfast.domain.settings import BadSettings, Settings
from holdfast.domain.settings_overload import Tenant
from holdfast.domain.tenant import DEFAULT, Limits

CHAT = frozenset({Scope.CHAT})
OPERATOR = frozenset({Scope.CHAT, Scope.METRICS})


class Holder(Struct, frozen=True):
    """Who holds a key. `id` is what logs may say of it: the key's id, or where in the settings it stands."""

    limits: Limits
    scopes: frozenset[Scope]
    id: str = ""
    digest: bytes = b""


class Tenants:
    """All tenants, by key and by name. `keyless`: whether a request without a key is the default tenant's.

    `operator` is the one of the settings' `keys` that opens the metrics too.
    """

    def __init__(
        self,
        limits: Iterable[Limits] = (),
        keys: Mapping[str, str] | None = None,
        keyless: bool | None = None,
        operator: str = "",
    ) -> None:
        self._set = {one.tenant: one for one in limits}
        self.default = self._set.setdefault(DEFAULT, Limits())
        self._written, self._operator = dict(keys or {}), operator
        self._lenient = not self._written if keyless is None else keyless
        self._nobody = Holder(self.default, OPERATOR)
        self._named: dict[str, Limits] = {}
        self._kept: dict[str, Holder] = {}
        self._own: dict[bytes, Holder] = {}
        self._salt = b""
        self.asked = self._keyless = False
        self.take(os.urandom(SALT_BYTES), (), closed=False)

    def take(self, salt: bytes, keys: Iterable[KeyEntry], closed: bool) -> None:
        """From now on these are the live keys of the ring. `closed`: a key is asked for even where there is none."""
        entries = list(keys)
        named, own = dict(self._set), {}
        for key, tenant in self._written.items():
            scopes = OPERATOR if key == self._operator else CHAT
            digest = digest_of(key, salt)
            where = "[gateway]" if key == self._operator else f"[tenants.{tenant}]"
            own[digest] = Holder(self._set[tenant], scopes, where, digest)
        kept = {}
        for one in entries:
            limits = named.setdefault(one.tenant, structs.replace(self.default, tenant=one.tenant))
            kept[one.id] = Holder(limits, frozenset(one.scopes), one.id, one.digest)
        self._salt, self._named, self._own, self._kept = salt, named, own, kept
        self.close(closed)

    def close(self, closed: bool) -> None:
        """There is no ring: a key is asked for all the same, or only where the settings have one."""
        self._keyless = self._lenient and not closed
        self.asked = bool(self._own) or closed

    @property
    def all(self) -> tuple[Limits, ...]:
        return tuple(self._set.values())

    def named(self, tenant: str) -> Limits:
        """A tenant's limits; one that is not in the settings has those of the default tenant."""
        return self._named.get(tenant, self.default)

    def of_key(self, key: str) -> Limits:
        """Whose key it is; see `holder_of`."""
        return self.holder_of(key).limits

    def who_is(self, key: str) -> tuple[Limits, str]:
        """Likewise, with what logs may say of the key."""
        holder = self.holder_of(key)
        return holder.limits, holder.id

    def takes_anybody(self, key: str) -> bool:
        """Whether nobody is asked who they are, or not those who say nothing."""
        return not self.asked or (not key and self._keyless)

    def holder_of(self, key: str, scope: Scope = Scope.CHAT) -> Holder:
        """Who holds this key, which is to open this.

        Raises:
            Unauthorised: nobody, or none was sent where one is needed.
            Forbidden: it does not open this.
        """
        if self.takes_anybody(key):
            return self._nobody
        given = digest_of(key, self._salt)
        holder = self._kept.get(key[ID]) if key.startswith(PREFIX) else None
        if holder is None:
            holder = self._own.get(given)
        if holder is None or not hmac.compare_digest(holder.digest, given):
            raise stranger(key)
        if scope not in holder.scopes:
            raise Forbidden(
                f"this key opens {', '.join(sorted(holder.scopes))}, not {scope}: "
                f"ask the operator for one with the scope {scope}"
            )
        return holder


def stranger(key: str) -> Unauthorised:
    """The refusal, which tells a missing key from a mistyped or a wrong one."""
    if not key:
        return Unauthorised("no API key was sent: send it in the header 'Authorization: Bearer KEY'")
    mistyped = complaint_of(key)
    if mistyped:
        return Unauthorised(mistyped)
    return Unauthorised("the API key is not known here: send it in the header 'Authorization: Bearer KEY'")


def limits_of(name: str, tenant: Tenant) -> Limits:
    """One `[tenants.NAME]` as limits."""
    return Limits(
        tenant=name,
        weight=tenant.weight,
        priority=tenant.priority,
        requests_per_s=tenant.requests_per_s,
        burst=tenant.burst,
        tokens_per_min=tenant.tokens_per_min,
        tokens_burst=tenant.tokens_burst,
        concurrency=tenant.concurrency,
        memory_min=tenant.memory_min,
        memory_max=tenant.memory_max,
    )


def tenants_of(settings: Settings) -> Tenants:
    """The `[tenants]` of the settings, and the key of `[gateway]`, which is the default tenant's.

    Raises:
        BadSettings: two tenants have the same key, or more memory is promised than there is.
    """
    keys: dict[str, str] = {}
    for name, tenant in settings.tenants.items():
        for key in tenant.keys:
            if not key:
                raise BadSettings(f"[tenants.{name}] keys: an empty key is none; remove it")
            other = keys.setdefault(key, name)
            if other != name:
                raise BadSettings(
                    f"[tenants.{name}] keys: one of them is also a key of [tenants.{other}]; give each its own"
                )
    own = settings.gateway.key
    if own and keys.setdefault(own, DEFAULT) != DEFAULT:
        raise BadSettings(f"[gateway] key is also a key of [tenants.{keys[own]}]; give each its own")
    promised = sum(tenant.memory_min for tenant in settings.tenants.values())
    if promised > 1:
        raise BadSettings(f"[tenants] memory_min: {promised:g} of the memory is promised in all; promise at most 1")
    keyless = not own and DEFAULT not in keys.values()
    return Tenants([limits_of(name, tenant) for name, tenant in settings.tenants.items()], keys, keyless, own)
