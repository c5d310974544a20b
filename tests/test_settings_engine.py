"""The settings of foreign engines: what contradicts itself is refused by name, and replicas are dealt their engines in turn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.domain.engine import EngineKind
from holdfast.domain.engine_words import OWN, contradiction
from holdfast.domain.settings import BadSettings
from holdfast.domain.settings_engine import Dealt, EngineSettings, deal
from holdfast.domain.settings_text import read

VLLM = '[replica]\nengine = "vllm"\ndevices = "cuda:0,cuda:1"\n[engine]\nprogram = "/v/bin/python"\n'
OUTSIDE = '[replica]\nengine = "vllm"\nurl = "http://127.0.0.1:9"\n[engine]\n'


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[replica]\nengine = "openai"', "'openai' is never run by Holdfast: name where it runs with [replica] url"),
        ('[replica]\nurl = "http://a:1"', "url: the embedded engine runs in a process of Holdfast. Leave url out"),
        ('[replica]\nengine = "vllm"', "[engine] program: say where vllm lies"),
        ('[replica]\nengine = "vllm"\n[engine]\nprogram = "python"', "[engine] program must be a whole path"),
        (VLLM + "gpus = 3", "gpus = 3, but [replica] devices names 2"),
        (VLLM + 'args = ["--host", "0.0.0.0"]', "args: --host is not for a site to say: it listens on loopback only"),
        (
            VLLM + 'args = ["--trust_remote_code"]',
            "--trust_remote_code is not for a site to say: code that comes with a model",
        ),
        (VLLM + 'args = ["--trust-rem"]', "--trust-rem is not for a site to say"),
        (VLLM + 'args = ["--api-key=x"]', "Holdfast gives it a new key at each start"),
        (VLLM + 'args = ["--config", "x.yaml"]', "words from a second file would go unseen"),
        (VLLM + 'env = ["https_proxy=http://x"]', "env: HTTPS_PROXY is not for a site to say"),
        (VLLM + 'env = ["VLLM_SERVER_DEV_MODE=1"]', "env: VLLM_SERVER_DEV_MODE is not for a site to say"),
        (VLLM + 'env = ["NCCL_DEBUG"]', "env: 'NCCL_DEBUG' is no variable: write NAME=value"),
        (VLLM + 'key = "k"', "[engine] key is for engines that run already"),
        (VLLM + "greedy_across = true", "there is one kind of engine only"),
        (VLLM + 'mix = ["vlm"]', "mix: each of ['vlm'] begins with a kind of engine, out of embedded, scripted, vllm"),
        ('[replica]\nengine = "triton"\nurl = "grpcs://a:1"', "Triton is spoken to without TLS only"),
        (OUTSIDE + '[smaller]\npath = "/small"', "[smaller] path: its replicas have the settings of [replica]"),
        (VLLM + 'mix = ["sglang"]', "mix: say where sglang lies, as a whole path"),
        (VLLM + 'mix = ["openai"]', "mix: 'openai' is never run by Holdfast"),
        (VLLM + 'mix = ["embedded=/x"]', "embedded is Holdfast's own: it takes no program or url"),
        (OUTSIDE + 'program = "/v"', "[engine] program and [replica] url: an engine that runs already isn't started"),
        (OUTSIDE + "start_s = 9.0", "[engine] start_s and [replica] url: an engine that runs already isn't started"),
        ('[replica]\nengine = "vllm"\nurl = "http://k@h:1"', "'h:1' can't be used: its key belongs into [engine] key"),
        ('[replica]\nengine = "vllm"\nurl = "h:1"', "'h:1' can't be used: write it as http://HOST:PORT"),
        ('[replica]\nengine = "vllm"\nurl = "http://h:1/v1"', "leave the path out"),
        ('[replica]\nengine = "vllm"\nurl = "http://h:99999"', "a port is a number from 1 to 65535"),
        ('[replica]\nengine = "vllm"\nurl = "grpc://h:1"', "vllm is spoken to by http"),
        ('[replica]\nengine = "triton"\nurl = "http://h:1"', "triton is spoken to by grpc"),
        ('[engine]\nprogram = "/v"', "[engine] program is for engines that Holdfast runs"),
        (VLLM + 'keys = {"http://a:1" = "k"}', "[engine] keys is for engines that run already"),
        (
            OUTSIDE + 'keys = {"http://127.0.0.1:8" = "k"}',
            "keys: no engine of this site is at 'http://127.0.0.1:8': write its url as it stands there: http://127.0.0.1:9.",
        ),
        (
            OUTSIDE + 'keys = {"http://127.0.0.1:9" = 8}',
            "[engine] keys: expected str, got int. It must be table of texts",
        ),
        (OUTSIDE + 'key = "file:key"', "[engine] key: 'file:key' must name a file by its whole path: file:/PATH"),
        (
            OUTSIDE + 'keys = {"http://127.0.0.1:9" = "\u00e9"}',
            "[engine] keys holds characters that can't stand in a header",
        ),
    ],
)
def test_what_can_not_be_meant_is_named(text, complaint):
    with pytest.raises(BadSettings) as refused:
        read(text, "s.toml")
    assert complaint in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        VLLM + 'gpus = 2\nargs = ["--kv-cache-dtype", "fp8", "--model-impl=auto"]\nenv = ["NCCL_DEBUG=WARN"]',
        OUTSIDE + 'key = "k"\nmodel_name = "m"',
        VLLM + 'mix = ["sglang=http://h:1"]\nkeys = {"http://h:1" = "file:/run/key"}',
        '[replica]\nengine = "openai"\nurl = "https://h/v1, http://[::1]:80/v1"',
        '[replica]\nengine = "triton"\nurl = "grpc://h:1"',
        VLLM + 'mix = ["embedded", "sglang=http://h:1"]\ngreedy_across = true',
        VLLM + 'mix = ["sglang=http://a:1"]\n[smaller]\npath = "/small"',
        '[replica]\nengine = "sglang"\nurl = "http://h:1"\ndevices = "cuda:0"\n'
        '[engine]\nmix = ["vllm=/v/python"]\ngpus = 1\nstart_s = 9.0',
    ],
)
def test_what_makes_sense_is_read(text):
    assert read(text).replica.engine != "embedded"


@pytest.mark.parametrize("kind", list(OWN))
def test_every_word_of_our_own_is_refused_in_every_spelling(kind):
    for word in OWN[kind]:
        dashes = "--" if len(word) > 3 else "-"
        for spelt in (dashes + word, f"{dashes}{word}=x", dashes + word.replace("-", "_")):
            assert f"args: {spelt} is not for a site to say" in contradiction(
                kind, "", "cpu", EngineSettings(program="/p", args=(spelt,))
            )


@pytest.mark.parametrize(
    ("kind", "word", "why"),
    [
        ("vllm", "--kv-transfer-config.kv_connector=x", "what it has read of prompts would leave it"),
        ("vllm", "--kv-events-config", "what it has read of prompts would leave it"),
        ("vllm", "--scheduler-cls=a.b", "code that comes with a model is never run"),
        ("vllm", "--generation-config", "how tokens are drawn is said by each request"),
        ("triton", "--trace-config=mode=triton", "prompts would be written down"),
        ("triton", "--allow-vertex-ai=true", "it listens on loopback only"),
        ("triton", "--grpc-restricted-protocol=health:k=v", "by a key of each start"),
        ("llamacpp", "-lv", "prompts would be written down"),
        ("llamacpp", "--slot-save-path", "prompts would be written down"),
        ("llamacpp", "--rpc", "it listens on loopback only"),
        ("sglang", "--dump-requests-folder", "prompts would be written down"),
        ("sglang", "--log-requests-level", "prompts would be written down"),
    ],
)  # fmt: skip
def test_words_that_open_doors_or_tell_of_prompts_are_refused(kind, word, why):
    said = contradiction(kind, "", "cpu", EngineSettings(program="/p", args=(word,)))
    assert said.startswith(f"[engine] args: {word} is not for a site to say: ")
    assert why in said


def test_engines_are_dealt_out_in_turn():
    engine = EngineSettings(program="/v", mix=("embedded", "sglang=http://h:1", "llamacpp=/l"))
    assert [deal("vllm", "", engine, number) for number in range(5)] == [
        Dealt(EngineKind.VLLM, program="/v"),
        Dealt(EngineKind.EMBEDDED, of_mix=True),
        Dealt(EngineKind.SGLANG, url="http://h:1", of_mix=True),
        Dealt(EngineKind.LLAMACPP, program="/l", of_mix=True),
        Dealt(EngineKind.VLLM, program="/v"),
    ]
    dealt = [deal("vllm", "http://a:1, http://b:1", EngineSettings(mix=("embedded",)), number) for number in range(6)]
    assert [one.url for one in dealt] == ["http://a:1", "", "http://b:1", "", "http://a:1", ""]


@given(
    st.sampled_from(list(EngineKind)),
    st.text(max_size=30),
    st.text(max_size=20),
    st.lists(st.text(max_size=12), max_size=3),
    st.lists(st.text(max_size=12), max_size=3),
)
def test_any_settings_are_judged_in_one_line(kind, url, devices, args, mix):
    engine = EngineSettings(program="/p", args=tuple(args), env=tuple(args), mix=tuple(mix), gpus=1)
    said = contradiction(kind, url, devices, engine)
    assert "\n" not in said
    assert said == "" or said.endswith(".")
