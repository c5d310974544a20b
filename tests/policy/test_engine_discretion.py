"""Discretion: what engines say while they serve is kept without the words of those who ask them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from holdfast.policy.engine_discretion import discreet

VLLM = "(EngineCore_0 pid=77) ERROR 11-29 18:46:37 [core.py:123]"
STATS = (
    "(APIServer pid=7) INFO 11-29 18:46:37 [loggers.py:127] Engine 000: Avg prompt throughput: 3.4 tokens/s, Avg generation "
    "throughput: 12.0 tokens/s, Running: 1 reqs, Waiting: 0 reqs, GPU KV cache usage: 0.1%, Prefix cache hit rate: 0.0%"
)


@pytest.mark.parametrize(
    "line",
    [
        STATS,
        'INFO: 127.0.0.1:40222 - "POST /v1/completions HTTP/1.1" 200 OK',
        "[2026-11-29 18:46:37 TP0] Decode batch. #running-req: 1, #token: 35, token usage: 0.00, gen throughput: 6.6",
        'File "/opt/vllm/v1/engine/core.py", line 12, in run_busy_loop',
        "RuntimeError: CUDA error: an illegal memory access was encountered",
        "srv update_slots: all slots are idle",
    ],
)
def test_what_quotes_nobody_is_kept_whole(line):
    assert discreet(line) == line


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        (f"{VLLM} ValueError: can't parse 'my secret'", f"{VLLM} ValueError"),
        (
            f"{VLLM} torch.OutOfMemoryError: CUDA out of memory. Tried to",
            f"{VLLM} torch.OutOfMemoryError: out of memory",
        ),
        (f"{VLLM} Dumping input data, prompt_token_ids=[1, 2, 3]", VLLM),
        ("E1129 18:46:37.123456 77 model.cc:10] failed on: my secret", "E1129 18:46:37.123456 77 model.cc:10]"),
        ("[2026-11-29 18:46:37] Receive: obj=GenerateReqInput(text='my secret')", "[2026-11-29 18:46:37]"),
        ("    raise ValueError(secret)", ""),
        ("my secret", ""),
        ("KeyError: 'my secret'", "KeyError"),
    ],
)
def test_of_all_else_there_remains_where_and_what_kind(line, kept):
    assert discreet(line) == kept


HEADS = ("", f"{VLLM} ", "[2026-11-29 18:46:37 TP0] ", "E1129 18:46:37.123456 77 model.cc:10] ", "srv  log_server: ")
FORMS = ("{}", "ValueError: {}", "prompt: {!r}", "RuntimeError: cannot use {}", '127.0.0.1:1 - "POST /{} HTTP/1.1" 200')


@given(st.sampled_from(HEADS), st.sampled_from(FORMS), st.text("abcdefg xyz", min_size=4))
def test_no_prompt_comes_through(head, form, said):
    prompt = f"marker {said} marker"
    assert "marker" not in discreet(head + form.format(prompt))
