"""Command lines: each word with its sentence, the site's own words last, no secret in either."""

from holdfast.domain.engine import EngineKind
from holdfast.policy.launch import launch
from plans import planned, words


def test_each_word_has_its_sentence_and_the_key_is_in_none():
    for kind in (EngineKind.VLLM, EngineKind.SGLANG):
        found = launch(planned(kind=kind, args=("--x", "1")))
        told = " ".join(word for word, _ in found.why if "=" not in word or word.startswith("-"))
        assert told == " ".join(found.argv)
        assert all(sentence for _, sentence in found.why)
        keyed = [word for word, _ in found.why if "k3y" in word]
        assert keyed == (["VLLM_API_KEY=k3y"] if kind is EngineKind.VLLM else [])


def test_the_sites_words_win_and_come_last():
    found = words(launch(planned(args=("-tp", "4", "--gpu_memory_utilization=0.8"))))
    assert "--tensor-parallel-size" not in found
    assert "--gpu-memory-utilization" not in found
    assert found.endswith("-tp 4 --gpu_memory_utilization=0.8")
    assert dict(launch(planned(env=("NCCL_DEBUG=WARN",))).env)["NCCL_DEBUG"] == "WARN"
