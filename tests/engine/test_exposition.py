"""What an engine counts, out of its Prometheus text."""

from holdfast.engine.exposition import labels, parse

TEXT = b"""# HELP vllm:num_requests_running Number of requests.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="a b}c"} 3.0
vllm:num_requests_running{engine="1",model_name="x"} 4.0
plain 1e3 1700000000
broken{a="b"
broken{a="b"} word
nothing NaN
vllm:cache_config_info{block_size="16",num_gpu_blocks="1024",note="say \\"x\\""} 1.0
"""


def test_samples_of_a_name_are_added_up() -> None:
    assert parse(TEXT) == {"vllm:num_requests_running": 7.0, "plain": 1000.0, "vllm:cache_config_info": 1.0}


def test_labels_tell_facts() -> None:
    assert labels(TEXT, "vllm:cache_config_info")["num_gpu_blocks"] == "1024"
    assert labels(TEXT, "vllm:cache") == {}


def test_bytes_that_are_no_text_are_no_counters() -> None:
    assert parse(b"\xff\xfe\x00{}\n\n{") == {}
