"""Replicas and their GPUs."""

from msgspec import structs

from holdfast.domain.replica import StartFault
from holdfast.policy.launch_gpus import Ask, gpus_of, indices_of
from plans import H200, facts


def ask(**more):
    return structs.replace(Ask(devices=(0, 1, 2, 3, 4, 5, 6, 7), seen=(H200,) * 8, number=0, replicas=2), **more)


def test_replicas_get_gpus_of_their_own():
    qwen = facts("qwen-32b")
    assert gpus_of(qwen, ask()) == (0,)
    assert gpus_of(qwen, ask(number=1, wanted=4)) == (4, 5, 6, 7)
    assert gpus_of(qwen, ask(devices=())) == ()
    refused = gpus_of(qwen, ask(number=2, wanted=4))
    assert refused.code is StartFault.DEVICE
    assert "replica 2 needs 4 GPUs of its own, and [replica] devices names 8, enough for 2 replicas" in refused.why
    assert gpus_of(qwen, ask(number=2, wanted=4, args=("--gpu-memory-utilization", "0.4"))) == (0, 1, 2, 3)
    assert gpus_of(facts("r1"), ask()) == tuple(range(8))
    assert gpus_of(facts("r1"), ask(seen=None)) == (0, 1, 2, 3)
    missing = gpus_of(qwen, ask(seen=(H200,)))
    assert "devices names cuda:1, and this machine has 1 GPU: name those that are there" in missing.why
    twice = gpus_of(qwen, ask(devices=indices_of("cuda:0, cuda"), seen=None))
    assert twice.code is StartFault.DEVICE
    assert (
        "devices names cuda:0 more than once, and engines take nearly all memory of a GPU: name each once" in twice.why
    )
    assert indices_of("cuda:3, cuda:1,cpu") == (3, 1)
