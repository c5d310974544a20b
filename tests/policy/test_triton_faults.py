"""Sentences that a real Triton 2.51 said, and what they are taken for."""

import pytest

from holdfast.domain.fault import BadRequest, EngineLost, EngineRefused
from holdfast.policy.triton_faults import read

AWAY = [
    ("Request for unknown model: 'holdfast' has no available versions", "NOT_FOUND"),
    ("Request for unknown model: 'holdfast' has no available versions", ""),
    ("failed to connect to all addresses; last error: UNKNOWN: ipv4:127.0.0.1:1: Connection refused", "UNAVAILABLE"),
    ("Exceeds maximum queue size", ""),
    ("This protocol is restricted, expecting header 'triton-grpc-protocol-holdfast-key'", "UNAVAILABLE"),
    ("refused: all 4 slots are taken and 2 attempts wait", ""),
]


@pytest.mark.parametrize(("said", "code"), AWAY)
def test_what_takes_no_work_refuses_and_is_a_loss_once_it_had_begun(said: str, code: str) -> None:
    assert isinstance(read(said, code, begun=False).fault, EngineRefused)
    assert isinstance(read(said, code, begun=True).fault, EngineLost)


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize(
    "said", ["Stub process 'holdfast_0_0' is not healthy.", "Stub process 'm_0_1' is not healthy."]
)
def test_a_dead_stub_is_evidence_against_the_model(said: str, begun: bool) -> None:
    reading = read(said, "INTERNAL", begun)
    assert reading.sick
    assert isinstance(reading.fault, EngineLost)
    assert reading.fault.why == f"Triton's model process is dead or frozen: {said}"


@pytest.mark.parametrize("said", ["Socket closed", "Connection reset by peer", "GOAWAY received"])
def test_a_cut_connection_loses_the_answer_even_before_its_first_token(said: str) -> None:
    assert isinstance(read(said, "UNAVAILABLE", begun=False).fault, EngineLost)


def test_a_wrong_request_is_its_own_fault() -> None:
    shape = "[request id: 1] unexpected shape for input 'input_ids' for model 'm'. Expected [-1], got [0]"
    assert isinstance(read(shape, "", begun=False).fault, BadRequest)
    own = read("bad request: temperature: temperature is -1; it must lie between 0 and 100", "", begun=False).fault
    assert isinstance(own, BadRequest)
    assert (own.param, own.why) == ("temperature", "temperature is -1; it must lie between 0 and 100")
    long = read("bad request: prompt_ids: a prompt of 9 tokens leaves no room in a context of 8", "", begun=False).fault
    assert isinstance(long, BadRequest)
    assert long.code == "context_length_exceeded"


def test_anything_else_loses_the_answer_and_says_its_code() -> None:
    fault = read("CUDA error:\n an illegal memory access", "INTERNAL", begun=False).fault
    assert isinstance(fault, EngineLost)
    assert fault.why == "Triton ended the answer: INTERNAL CUDA error: an illegal memory access"
    assert read("x", "DEADLINE_EXCEEDED", begun=False).fault.why == "Triton did not answer in time"
    assert read("failed: the logits at position 3 are not finite", "", begun=True).fault.why.startswith("the logits")
