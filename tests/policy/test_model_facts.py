"""What a model folder is, told from published configs and from any nonsense."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.model_facts import Family, ModelFile, facts_of
from plans import facts
from published import CONFIGS, FAMILIES, SIZES


@pytest.mark.parametrize("name", sorted(SIZES))
def test_each_published_folder_is_known(name):
    found = facts(name)
    assert found.family is FAMILIES[name]
    assert found.shards == SIZES[name][1]
    assert found.mla == name.startswith(("v2", "r1", "v3"))


def test_the_shipped_model_is_known_as_small_and_other_files_as_themselves():
    tiny = {**CONFIGS["r1"], "hidden_size": 256, "quantization_config": None}
    found = facts_of(tiny, [ModelFile("model.safetensors", 9_457_464)])
    assert found.family is Family.TINY
    assert found.named() == "a small model of DeepSeek's architecture, bfloat16, 1 file, 9.0 MiB"
    gguf = facts_of({}, [ModelFile("b-00002-of-00002.gguf", 5), ModelFile("b-00001-of-00002.gguf", 7)])
    assert (gguf.gguf, gguf.gguf_bytes, gguf.quantised) == ("b-00001-of-00002.gguf", 12, "gguf")
    assert gguf.named() == "another model, GGUF, 0.0 MiB"
    beside = facts_of({**CONFIGS["r1"], "quantization_config": None}, [ModelFile("b.gguf", 9 * 1024**3)])
    assert beside.named() == "DeepSeek-V3/R1, GGUF, 9.0 GiB"
    assert facts_of(tiny, [ModelFile("b.gguf", 9_457_464)]).family is Family.TINY
    assert facts_of({"model_type": "mamba"}, []).family is Family.OTHER


@given(
    st.dictionaries(
        st.sampled_from(sorted({key for one in CONFIGS.values() for key in one} | {"text_config"})),
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(max_size=5)
        | st.lists(st.integers(), max_size=2)
        | st.just({}),
    )
)
def test_any_config_has_facts(config):
    assert facts_of(config, [ModelFile("x.safetensors", 3)]).weights_bytes == 3
