"""What of a foreign engine's complaint goes to who asked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.outward import outward

URL, KEY = "http://gpu-7.inside:8000", "sk-secret"


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("{URL} answered 400: max_tokens=8000 is too much", "the engine answered 400: max_tokens=8000 is too much"),
        ("{URL}/health says no", "the engine/health says no"),
        ("{URL}1 is another", "... is another"),
        ("see http://gpu-7.inside:8000/v1/models?x=1, it says", "see the engine/v1/models?x=1, it says"),
        ("'https://u:p@gpu-7.inside/x' failed", "'...' failed"),
        ("from gpu-7.inside:8000 to 10.0.0.9:31337: reset", "from ... to ...: reset"),
        ("gpu-7.inside refused, GPU-7 is a word, as is agpu-7.insider", "... refused, GPU-7 is a word, as is agpu-7.insider"),
        ("listens on port 8000 (port=8000), 8000 tokens", "listens on port ... (port=...), 8000 tokens"),
        ("http://localhost:9/v1 and [::1]:9 and 127.0.0.1", "... and ... and ..."),
        ("Incorrect API key sk-secret; 'sk-secret2' is another", "Incorrect API key ...; 'sk-secret2' is another"),
        ("see https://docs.vllm.ai/x for top_k", "see https://docs.vllm.ai/x for top_k"),
        ("at 12:30 in json.loads(a.b)", "at 12:30 in json.loads(a.b)"),
        ("ids [4096], [1:2] and [abc] are out of range", "ids [4096], [1:2] and [abc] are out of range"),
        ("HTTPConnectionPool(host='10.1.1.1', port=9000): reset", "HTTPConnectionPool(host='...', port=...): reset"),
    ],
)  # fmt: skip
def test_a_sentence_loses_places_and_keys_and_nothing_else(said, told):
    assert outward(said.replace("{URL}", URL), URL, KEY) == told


def test_a_host_that_is_a_word_is_left_in_sentences():
    assert outward("http://vllm:8000 answered 400: vllm can't, ask vllm:8000", "http://vllm:8000") == (
        "the engine answered 400: vllm can't, ask ..."
    )
    assert outward("ipv4:10.1.2.3:8001: refused at h:8001", "grpc://h:8001") == "ipv4:...: refused at ..."
    assert (
        outward("http://h:1 answered 400: k is token k", "http://h:1/v1", "k")
        == "the engine answered 400: ... is token ..."
    )


def test_a_machine_whose_name_begins_with_the_engines_is_another():
    assert outward("http://gpu answered 400: see http://gpu.org/x or http://gpu-9/x", "http://gpu") == (
        "the engine answered 400: see ... or http://gpu-9/x"
    )


@given(st.text(), st.text())
def test_whatever_is_said_url_and_key_do_not_pass(before, after):
    said = outward(f"{before} {URL} gpu-7.inside:8000 {KEY} {after}", URL, KEY)
    assert URL not in said
    assert "gpu-7.inside:8000" not in said
    assert f" {KEY} " not in said
