"""On how many GPUs a model fits, held to what SGLang's documentation and arithmetic say."""

import pytest

from holdfast.domain.engine import StartFailure
from holdfast.domain.replica import StartFault
from holdfast.policy.launch_fit import Fit, Spread, fewest, fit
from plans import A100, B200, H100, H200, MI300X, facts


# SGLang's documentation of DeepSeek-V3 lists on which machines which numbers fit; one line of it each.
@pytest.mark.parametrize(
    ("name", "gpu", "eight", "words_"),
    [
        ("r1", H200, True, "on each of 8 GPUs (NVIDIA H200, 140.4 GiB)"),
        ("r1", B200, True, "left for the cache"),
        ("r1", MI300X, True, "left for the cache"),
        ("r1", H100, False, "does not fit on 8 x NVIDIA H100 80GB HBM3 (79.6 GiB each): 80.2 GiB of weights on each"),
        ("r1", A100, False, "NVIDIA A100-SXM4-80GB does not compute in FP8, the numbers of DeepSeek-V3/R1 (fp8)"),
        ("v3-awq", A100, True, "left for the cache"),
        ("v3-awq", H100, True, "left for the cache"),
        ("v3.2", A100, False, "does not compute in FP8"),
        ("v4-pro", H100, False, "does not fit"),
        ("v4-pro", H200, True, "left for the cache"),
        ("v4.1-flash", H200, True, "left for the cache"),
        ("llama-70b", A100, True, "left for the cache"),
    ],
)
def test_what_fits_on_eight_gpus(name, gpu, eight, words_):
    found = fit(facts(name), [gpu] * 8, 8, 8192)
    assert isinstance(found, Fit) == eight
    assert words_ in found.why


def test_a_cache_of_heads_is_shared_out_and_a_latent_one_is_not():
    llama, r1 = facts("llama-70b"), facts("r1")
    assert llama.cache_bytes_per_token == 327_680
    assert r1.cache_bytes_per_token == 70_272
    eight = fit(llama, [H200] * 8, 8, 1000)
    assert eight.tokens > 2_000_000
    r1_eight = fit(r1, [H200] * 8, 8, 1000)
    assert 600_000 < r1_eight.tokens < 700_000


def test_sparse_models_keep_attention_whole_on_each_gpu_where_that_fits():
    assert fit(facts("v3.2"), [H200] * 8, 8, 32768).spread == Spread(data=8, experts=True)
    assert fit(facts("v3.2"), None, 8, 32768).spread == Spread(tensor=8, experts=True)


def test_heads_that_can_not_be_shared_out_are_told():
    found = fit(facts("qwen-1.5b"), [H200] * 8, 8, 1000)
    assert found == StartFailure(
        StartFault.SETTINGS,
        "R1-Distill-Qwen has 12 attention heads, which 8 GPUs can't share out evenly: set [engine] gpus to 1, 2, 4 or 8",
    )


def test_the_fewest_gpus_are_found():
    assert [fewest(facts(name), [A100] * 8, 8192) for name in ("qwen-7b", "qwen-32b", "llama-70b", "r1")] == [
        1,
        2,
        4,
        0,
    ]
