"""What a GGUF file says of its numbers, by files that our own writer makes and by what is no such file."""

from pathlib import Path

import pytest

from holdfast.store.gguf_head import ALL_F32, file_type_of

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
    assert file_type_of(tmp_path / "m.gguf") == told


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF" + bytes(20), b"not such a file" * 9, b"GGUF" + b"\xff" * 90])
def test_what_does_not_say_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.gguf").write_bytes(content)
    assert file_type_of(tmp_path / "m.gguf") is None
