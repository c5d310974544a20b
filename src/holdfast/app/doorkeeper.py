"""Who may look at the control plane: on this machine anybody, until there is an admin key; beyond it whoever has one, or a
certificate of ours."""

import hmac
from collections.abc import Callable

from holdfast.domain.address import is_loopback
from holdfast.domain.fault import Fault, Forbidden
from holdfast.domain.key import ID, KeyRing, Scope, digest_of
from holdfast.domain.settings import Settings
from holdfast.gateway.tenants import stranger
from holdfast.store.folder import folder_of
from holdfast.store.keys import KeyFiles


class Doorkeeper:
    """Reads the key ring afresh at each question, which costs nothing while it has not changed."""

    def __init__(self, settings: Settings, unix_s: Callable[[], float]) -> None:
        control = settings.control
        self._files, self._unix_s = KeyFiles(folder_of(settings).keys), unix_s
        self._exposed = not is_loopback(control.host) and not control.tls_client_ca
        self._ring: KeyRing | None = None

    def screen(self, key: str, scopes: frozenset[Scope]) -> Fault | None:
        """Why this key does not open what any of these scopes opens; None when it does, or nobody is asked."""
        looked = self._files.look()
        if looked.ring is not None and (self._ring is None or looked.ring.version >= self._ring.version):
            self._ring = looked.ring
        ring = self._ring
        if ring is None:
            return stranger(key) if self._exposed or looked.why else None
        if not self._exposed and not any(Scope.ADMIN in one.scopes for one in ring.keys):
            return None
        given, now = digest_of(key, ring.salt), self._unix_s()
        entry = next((one for one in ring.keys if one.id == key[ID] and one.live(now)), None)
        if entry is None or not hmac.compare_digest(entry.digest, given):
            return stranger(key)
        if scopes.isdisjoint(entry.scopes):
            return Forbidden(
                f"this key opens {', '.join(entry.scopes)}; one with the scope {min(scopes)} is needed here"
            )
        return None
