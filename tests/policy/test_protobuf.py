"""Our Protocol Buffers against Google's: the same bytes mean the same, whichever side wrote them."""

from typing import Any

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Struct

from holdfast.domain import kserve
from holdfast.domain.kserve import (
    CODEC,
    InferRequest,
    ModelStats,
    Parameter,
    StreamItem,
    Tensor,
    numbers,
    packed,
    texts,
)
from holdfast.domain.protobuf import Garbled, Kind

_TYPES = {
    Kind.BOOL: "TYPE_BOOL", Kind.INT: "TYPE_INT64", Kind.UINT: "TYPE_UINT64", Kind.DOUBLE: "TYPE_DOUBLE",
    Kind.TEXT: "TYPE_STRING", Kind.BLOB: "TYPE_BYTES", Kind.MESSAGE: "TYPE_MESSAGE", Kind.INTS: "TYPE_INT64",
    Kind.TEXTS: "TYPE_STRING", Kind.BLOBS: "TYPE_BYTES", Kind.MESSAGES: "TYPE_MESSAGE", Kind.MAP: "TYPE_MESSAGE",
}  # fmt: skip
_PLURAL = (Kind.INTS, Kind.TEXTS, Kind.BLOBS, Kind.MESSAGES, Kind.MAP)
TABLES = CODEC._tables


def google() -> dict[str, Any]:
    """Google's classes for the same table."""
    file = descriptor_pb2.FileDescriptorProto(name="k.proto", package="k", syntax="proto3")
    for kind, fields in TABLES.items():
        message = file.message_type.add(name=kind.__name__)
        for field in fields:
            label = "LABEL_REPEATED" if field.kind in _PLURAL else "LABEL_OPTIONAL"
            added = message.field.add(
                name=field.name,
                number=field.number,
                type=getattr(descriptor_pb2.FieldDescriptorProto, _TYPES[field.kind]),
                label=getattr(descriptor_pb2.FieldDescriptorProto, label),
            )
            if field.kind is Kind.MAP:
                assert field.of is not None
                name = "".join(word.title() for word in field.name.split("_")) + "Entry"
                entry = message.nested_type.add(name=name)
                entry.options.map_entry = True
                proto = descriptor_pb2.FieldDescriptorProto
                entry.field.add(name="key", number=1, type=proto.TYPE_STRING, label=proto.LABEL_OPTIONAL)
                entry.field.add(
                    name="value", number=2, type=proto.TYPE_MESSAGE, label=proto.LABEL_OPTIONAL,
                    type_name=f".k.{field.of.__name__}",
                )  # fmt: skip
                added.type_name = f".k.{kind.__name__}.{name}"
            elif field.of is not None:
                added.type_name = f".k.{field.of.__name__}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        kind.__name__: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"k.{kind.__name__}"))
        for kind in TABLES
    }


GOOGLE = google()
_INT = st.integers(-(2**63), 2**63 - 1)
_LEAVES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.BOOL: st.booleans(),
    Kind.INT: _INT,
    Kind.UINT: st.integers(0, 2**64 - 1),
    Kind.DOUBLE: st.floats(allow_nan=False),
    Kind.TEXT: st.text(max_size=9),
    Kind.BLOB: st.binary(max_size=9),
    Kind.INTS: st.lists(_INT, max_size=3),
    Kind.TEXTS: st.lists(st.text(max_size=9), max_size=3),
    Kind.BLOBS: st.lists(st.binary(max_size=9), max_size=3),
}


def messages(kind: type[Struct]) -> st.SearchStrategy[Struct]:
    fields = {}
    for field in TABLES[kind]:
        if field.of is None:
            fields[field.name] = _LEAVES[field.kind]
            continue
        inner = messages(field.of)
        many = st.lists(inner, max_size=2) if field.kind is Kind.MESSAGES else inner
        fields[field.name] = st.dictionaries(st.text(max_size=5), inner, max_size=2) if field.kind is Kind.MAP else many
    return st.builds(kind, **fields)


@pytest.mark.parametrize("kind", TABLES, ids=lambda kind: kind.__name__)
def test_google_reads_what_we_write_and_we_read_what_google_writes(kind: type[Struct]) -> None:
    @given(messages(kind))
    def agree(message: Struct) -> None:
        theirs = GOOGLE[kind.__name__].FromString(CODEC.encode(message))
        again = CODEC.decode(kind, theirs.SerializeToString())
        assert CODEC.decode(kind, CODEC.encode(message)) == again
        assert CODEC.encode(again) == CODEC.encode(message) or again == message

    agree()


@given(st.binary(max_size=60))
def test_garbage_is_garbled_or_a_message_and_nothing_else(data: bytes) -> None:
    try:
        CODEC.decode(StreamItem, data)
    except Garbled:
        return


def test_bytes_that_are_cut_short_are_garbled() -> None:
    whole = CODEC.encode(InferRequest("m", inputs=[Tensor("a", "INT32", [2])], raw=[b"12345678"]))
    for end in (1, 5, len(whole) - 1):
        with pytest.raises(Garbled):
            CODEC.decode(InferRequest, whole[:end])


def test_fields_that_the_table_does_not_know_are_passed_over() -> None:
    theirs = b"\x0a\x01m" + b"\xfa\x7f\x02hi" + b"\x90\x03\x07"
    assert CODEC.decode(Parameter, b"\x08\x01" + theirs[3:]).bool_param


def test_tensors_come_back_as_they_were() -> None:
    assert numbers("INT32", packed("INT32", [1, -2])) == (1, -2)
    assert numbers("UINT64", packed("UINT64", [2**64 - 1])) == (2**64 - 1,)
    assert numbers("BOOL", packed("BOOL", [True, False])) == (True, False)
    assert texts(packed("BYTES", ["a", "", "世"])) == ["a", "", "世"]
    with pytest.raises(Garbled):
        numbers("INT32", b"123")
    with pytest.raises(Garbled):
        texts(b"\x05\x00\x00\x00abc")


def test_progress_counts_every_response() -> None:
    few = kserve.ResponseStats(success=kserve.Lasted(7))
    assert ModelStats(inference_count=2, execution_count=1, response_stats={"0": few}).progress == 10
