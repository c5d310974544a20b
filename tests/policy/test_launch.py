"""What no profile may ever say."""

from holdfast.domain.engine import EngineKind, StartFailure
from holdfast.domain.replica import StartFault
from holdfast.policy.launch import launch
from plans import planned


def test_no_plan_gets_past_the_last_look():
    for word in ("--trust-remote-code", "--api-key=x", "--middleware"):
        found = launch(planned(args=(word,)))
        assert isinstance(found, StartFailure)
        assert "must not stand in an engine's command line" in found.why
    assert "key must not stand in its command line" in launch(planned(args=("--x", "k3y"))).why
    assert launch(planned(program="")).why == "[engine] program is empty: say where vllm lies"
    assert launch(planned(kind=EngineKind.OPENAI)).why == "openai is not a program that Holdfast runs"


def test_a_program_that_is_no_python_is_told():
    for kind in (EngineKind.VLLM, EngineKind.SGLANG):
        found = launch(planned(kind=kind, program="/opt/bin/vllm"))
        assert found.code is StartFault.SETTINGS
        assert "/opt/bin/vllm is not a Python: name the one in whose environment" in found.why
