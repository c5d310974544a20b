"""What a GGUF file says of its numbers and its origin, by files that our own writer makes and by what is no such file."""

import struct
from pathlib import Path

import pytest

from holdfast.store.gguf_head import ALL_F32, Head, head_of

gguf = pytest.importorskip("gguf", reason="gguf is not installed: pip install 'holdfast[gguf]'")


@pytest.mark.parametrize(("kind", "told"), [(0, ALL_F32), (32, 32)], ids=["f32", "bf16"])
def test_the_type_is_found_among_what_stands_before_it(tmp_path: Path, kind: int, told: int) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "deepseek2")
    writer.add_name("a model")
    writer.add_block_count(3)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_file_type(kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert head_of(tmp_path / "m.gguf") == Head(told)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + bytes(20), b"not such a file" * 9, b"GGUF" + b"\xff" * 90])
def test_what_does_not_say_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    assert head_of(tmp_path / "m.gguf") == Head()


def test_whose_weights_it_was_made_of_is_found_behind_what_our_writer_puts_before_it(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "m.gguf", "deepseek2")
    writer.add_name("a model")
    writer.add_file_type(32)
    writer.add_string("holdfast.weights", "ab" * 32)
    writer.add_token_list(["a", "b"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    assert head_of(tmp_path / "m.gguf") == Head(32, "ab" * 32)


def test_a_file_that_is_cut_tells_what_came_before_the_cut(tmp_path: Path) -> None:
    key, text = b"holdfast.weights", b"ab" * 32
    whole = struct.pack("<4sIQQQ", b"GGUF", 3, 0, 2, 17) + b"general.file_type" + struct.pack("<II", 4, 0)
    whole += struct.pack("<Q", len(key)) + key + struct.pack("<IQ", 8, len(text)) + text
    (tmp_path / "m.gguf").write_bytes(whole)
    assert head_of(tmp_path / "m.gguf") == Head(0, text.decode())
    (tmp_path / "m.gguf").write_bytes(whole[:-1])
    assert head_of(tmp_path / "m.gguf") == Head(0, "")
