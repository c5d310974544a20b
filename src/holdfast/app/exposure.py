"""Who can reach this site, and what they have to show: checked before anything is started.

Without any key only this machine is served. An address beyond it needs a key, or the word of the operator that none is wanted.
"""

from holdfast.domain.address import is_loopback
from holdfast.domain.key import Scope
from holdfast.domain.settings import BadSettings, Settings
from holdfast.host.clock import unix_s
from holdfast.store.folder import folder_of
from holdfast.store.keys import KeyFiles


def live_scopes(settings: Settings) -> set[Scope]:
    """What the live keys of this site's ring open."""
    ring, now = KeyFiles(folder_of(settings).keys).look().ring, unix_s()
    return {scope for one in (ring.keys if ring is not None else ()) if one.live(now) for scope in one.scopes}


def who_is_served(settings: Settings) -> str:
    """The sentence for whoever starts the site.

    Raises:
        BadSettings: strangers would be served, and nobody said that they should be.
    """
    scopes, gateway = live_scopes(settings), settings.gateway
    keyed = bool(gateway.key) or any(one.keys for one in settings.tenants.values()) or Scope.CHAT in scopes
    if not is_loopback(settings.control.host) and not settings.control.tls_client_ca and Scope.ADMIN not in scopes:
        raise BadSettings(
            f"[control] host is {settings.control.host}, which others can reach, and nobody is asked who they are. Make an "
            "admin key (holdfast key create NAME --scope admin), or set [control] tls_client_ca, or listen on 127.0.0.1"
        )
    if is_loopback(gateway.host):
        said = "served with a key" if keyed else "served without a key: holdfast key create NAME makes one"
        return f"only this machine is {said}"
    if keyed:
        return f"whoever reaches {gateway.host} is served with a key"
    if gateway.open:
        return f"everybody who reaches {gateway.host} is served, without a key: [gateway] open is true"
    raise BadSettings(
        f"[gateway] host is {gateway.host}, which others can reach, and there is no key. Make one (holdfast key create NAME), "
        "or listen on 127.0.0.1, or set [gateway] open = true to serve everybody on purpose"
    )
