"""The contract of lines, played before every stage of our own. A story that needs more of a scripted replica is in
test_embedded.py."""

from holdfast.testing.engine_contract import LineContract


class TestEmbedded(LineContract):
    """The fixture `stage` is in conftest.py."""
