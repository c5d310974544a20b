"""The door's question to strangers, asked before a body is parsed."""

import pytest

from holdfast.domain.fault import Unauthorised
from holdfast.gateway.identify import screen
from holdfast.gateway.tenants import Tenants


def test_without_keys_nobody_is_asked():
    assert screen(Tenants()) is None


def test_a_stranger_is_told_what_to_send_and_a_friend_passes():
    ask = screen(Tenants(keys={"right": "default", "also right": "default"}))
    assert ask is not None
    ask("right", 10)
    with pytest.raises(Unauthorised, match="no API key was sent: send it in the header"):
        ask("", 10)
    with pytest.raises(Unauthorised, match="the API key is not known here"):
        ask("wrong", 10)
