"""Tenants: whose key is this, and what may they use?

Keys are looked up by a digest that is keyed anew in every process, so that the time of a look-up tells nothing about the keys
that exist: nobody outside can choose what is compared. Without any key in the settings nobody is asked for one (the gateway
listens on loopback only, by default).
"""

import os
from collections.abc import Iterable, Mapping
from hashlib import blake2b

from holdfast.domain.fault import Unauthorised
from holdfast.domain.settings import BadSettings, Settings
from holdfast.domain.settings_overload import Tenant
from holdfast.domain.tenant import DEFAULT, Limits


class Tenants:
    """All tenants, by key and by name. `keyless`: whether a request without a key is the default tenant's."""

    def __init__(
        self, limits: Iterable[Limits] = (), keys: Mapping[str, str] | None = None, keyless: bool | None = None
    ) -> None:
        self._named = {one.tenant: one for one in limits}
        self.default = self._named.setdefault(DEFAULT, Limits())
        self._salt = os.urandom(16)
        self._keys = {self._digest(key): tenant for key, tenant in (keys or {}).items()}
        self._keyless = not self._keys if keyless is None else keyless

    @property
    def asked(self) -> bool:
        """Whether anybody is asked for a key."""
        return bool(self._keys)

    @property
    def all(self) -> tuple[Limits, ...]:
        return tuple(self._named.values())

    def named(self, tenant: str) -> Limits:
        """A tenant's limits; one that is not in the settings has those of the default tenant."""
        return self._named.get(tenant, self.default)

    def of_key(self, key: str) -> Limits:
        """Whose key it is.

        Raises:
            Unauthorised: nobody's, or none was sent where one is needed.
        """
        if not self._keys or (not key and self._keyless):
            return self.default
        given = self._digest(key)
        tenant = self._keys.get(given)
        if tenant is None:
            raise stranger(key)
        return self._named[tenant]

    def _digest(self, key: str) -> bytes:
        return blake2b(key.encode("utf-8", "surrogateescape"), digest_size=16, key=self._salt).digest()


def stranger(key: str) -> Unauthorised:
    """The refusal, which tells a missing key from a wrong one."""
    missing = "no API key was sent" if not key else "the API key is not known here"
    return Unauthorised(f"{missing}: send it in the header 'Authorization: Bearer KEY'")


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
    return Tenants([limits_of(name, tenant) for name, tenant in settings.tenants.items()], keys, keyless)
