"""Replicas and their GPUs."""

from msgspec import structs

from holdfast.domain.replica import StartFault
from holdfast.domain.settings import ReplicaSettings
from holdfast.domain.settings_engine import EngineSettings
from holdfast.policy.launch_gpus import Ask, crowded, gpus_each, gpus_of, indices_of, turn_of
from plans import H200, facts


def ask(number=0, **more):
    asked = Ask(devices=(0, 1, 2, 3, 4, 5, 6, 7), seen=(H200,) * 8, number=number, turn=number, replicas=2)
    return structs.replace(asked, **more)


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


def test_kinds_without_gpus_of_ours_shift_nobody():
    mixed = EngineSettings(
        program="/v/python", mix=("openai=http://h:1", "llamacpp=/x/bin/python3", "llamacpp=/l/llama-server")
    )
    replica = ReplicaSettings(engine="vllm", count=8)
    assert [turn_of(replica, mixed, number) for number in range(9)] == [0, 1, 1, 1, 2, 3, 3, 3, 4]
    outside = ReplicaSettings(engine="sglang", url="http://h:1")
    assert turn_of(outside, EngineSettings(mix=("vllm=/v/python",)), 4) == 2
    refused = gpus_of(facts("qwen-32b"), ask(number=8, turn=4, wanted=2))
    assert "replica 8 needs 2 GPUs of its own, and [replica] devices names 8, enough for 4 replicas" in refused.why
    assert refused.why.endswith("name more, or lower [replica] count")


def test_beside_our_own_engine_each_gets_one_unless_the_site_says_otherwise():
    replica = ReplicaSettings(engine="vllm")
    for engine, each in (
        (EngineSettings(program="/v"), 0),
        (EngineSettings(program="/v", mix=("sglang=/s",)), 0),
        (EngineSettings(program="/v", mix=("embedded",)), 1),
        (EngineSettings(program="/v", mix=("embedded",), gpus=2), 2),
    ):
        assert gpus_each(replica, engine) == each


def test_our_own_engine_on_a_gpu_that_another_engine_fills_is_told():
    beside = EngineSettings(program="/v", mix=("embedded",))
    two = ReplicaSettings(engine="vllm", devices="cuda:4,cuda:7")
    assert [crowded(two, beside, number) for number in (1, 3)] == [None, None]  # the latter is beside our own
    assert crowded(ReplicaSettings(engine="vllm", devices="cuda:4"), beside, 1) == (4, 0)
    three = ReplicaSettings(engine="vllm", devices="cuda:0,cuda:1,cuda:2")
    assert crowded(three, EngineSettings(program="/v", mix=("embedded",), gpus=2), 3) == (0, 0)
    assert crowded(ReplicaSettings(devices="cuda:0"), EngineSettings(), 5) is None
    assert crowded(ReplicaSettings(engine="vllm"), beside, 1) is None
