"""Parts and segments as bytes: what was written, or `Corrupt` (docs/format.md, sections 4 and 7)."""

from __future__ import annotations

import hashlib
import json
import struct
import sys
import tracemalloc
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from everturn.errors import Corrupt
from everturn.log.format import MAX_SIZE_BYTES, Kind, Part, decode, encode_part, encode_segment
from everturn.log.frames import MAGIC
from everturn.log.names import Span, part

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

ENTRIES = [{"uuid": "a", "text": "one"}, {"type": "two"}, [], "three"]
HEADER = {
    "v": 1,
    "kind": "data",
    "seq": 1,
    "epoch": 0,
    "writer": "w",
    "write_id": "0" * 16,
    "count": 1,
    "size": 2,
}
SEGMENT_HEADER = {
    **{key: value for key, value in HEADER.items() if key != "seq"},
    "kind": "segment",
    "first": 1,
    "last": 1,
    "parts": [[0, "0" * 16, 1, "data"]],
}


def encoded(seq: int, entries: Sequence[Any], kind: Kind = "data", epoch: int = 0) -> bytes:
    return encode_part(seq, entries, epoch=epoch, writer="a writer", write_id=f"{seq:016x}", kind=kind)[1]


def decoded(seq: int, entries: Sequence[Any], kind: Kind = "data", epoch: int = 0) -> Part:
    return decode(encoded(seq, entries, kind, epoch), part(seq))


def assembled(header: Any, frames: bytes) -> bytes:
    """Build an object by the letter of the format, with a digest that is right."""
    line = header if isinstance(header, bytes) else json.dumps(header).encode() + b"\n"
    digest = hashlib.sha256(line + frames).hexdigest().encode()
    content = line + b"sha256:" + digest + b"\n"
    return struct.pack("<II", MAGIC, len(content)) + content + frames


def frame(lines: bytes) -> bytes:
    return zstd.compress(lines)


@pytest.mark.slow
@given(
    st.integers(1, 10**10 - 1),
    st.lists(st.dictionaries(st.text(), st.integers() | st.text()), max_size=5),
    st.integers(0, 2**40),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_a_part_comes_back_as_it_was_written(seq: int, entries: list[Any], epoch: int, writer: str) -> None:
    header, data = encode_part(seq, entries, epoch=epoch, writer=writer, write_id="f" * 16)
    found = decode(data, part(seq))
    assert found.header == header
    assert (header.span, header.kind, header.epoch, header.writer) == (part(seq), "data", epoch, writer)
    assert (header.write_id, header.count) == ("f" * 16, len(entries))
    assert found.entries() == entries


@pytest.mark.parametrize("kind", ["fence", "truncate"])
def test_marks_hold_no_entries(kind: Kind) -> None:
    found = decoded(3, [], kind, epoch=7)
    assert (found.header.kind, found.header.epoch, found.header.count, found.entries()) == (kind, 7, 0, [])


@pytest.mark.parametrize("size", [0, 1, (1 << 17) - 5, (1 << 17) - 4, 1 << 17, (1 << 18) - 4, 1 << 20, 20 << 20])
def test_parts_of_any_size_come_back(size: int) -> None:
    text = "ab" * (size // 2) + "c" * (size % 2)
    assert decoded(1, [text]).entries() == [text]


def test_the_header_is_as_the_format_says() -> None:
    data = encoded(7, [{"n": 2**70}], epoch=3)
    magic, length = struct.unpack_from("<II", data)
    line, digest, nothing = data[8 : 8 + length].split(b"\n")
    assert (magic, nothing) == (0x184D2A5E, b"")
    assert json.loads(line) == {
        "v": 1,
        "kind": "data",
        "seq": 7,
        "epoch": 3,
        "writer": "a writer",
        "write_id": "0000000000000007",
        "count": 1,
        "size": len('{"n":1180591620717411303424}\n'),
        "exact": True,
    }
    assert digest == b"sha256:" + hashlib.sha256(line + b"\n" + data[8 + length :]).hexdigest().encode()


@pytest.mark.parametrize("writer", ["Grüße", "\u2028", "\ud800", "a\nb"], ids=ascii)
def test_the_header_is_two_lines_of_ascii_whatever_the_writer_is_called(writer: str) -> None:
    _, data = encode_part(1, [], epoch=0, writer=writer, write_id="")
    header = data[8 : 8 + struct.unpack_from("<II", data)[1]]
    assert header.isascii()
    assert header.count(b"\n") == 2
    assert decode(data, part(1)).header.writer == writer


def test_what_the_format_says_is_all_a_foreign_writer_needs() -> None:
    assert decode(assembled(HEADER, frame(b"1\n")), part(1)).entries() == [1]
    found = decode(assembled(SEGMENT_HEADER, frame(b"1\n")), Span(1, 1, segment=True))
    assert found.entries() == [1]


def test_header_fields_that_are_not_known_are_ignored() -> None:
    assert decode(assembled({**HEADER, "colour": {"red": 1}}, frame(b"1\n")), part(1)).entries() == [1]


def test_a_part_is_one_stream_of_exactly_its_lines_for_any_decoder() -> None:
    assert zstd.decompress(encoded(1, [{"a": "é"}, 2])) == '{"a":"é"}\n2\n'.encode()
    assert zstd.decompress(encoded(1, [], "fence")) == b""


def test_parts_in_a_row_are_one_stream() -> None:
    stream = encoded(1, [], "fence") + encoded(2, [1]) + encode_segment([decoded(3, [2])], writer="", write_id="")
    assert zstd.decompress(stream + encoded(4, [3])) == b"1\n2\n3\n"


def test_the_data_frame_carries_a_checksum() -> None:
    data = encoded(1, [1])
    descriptor = data[8 + struct.unpack_from("<II", data)[1] + 4]
    assert descriptor & 0b100  # RFC 8878, 3.1.1.1.1: Content_Checksum_flag


def test_any_flipped_bit_is_found() -> None:
    data = encoded(1, ENTRIES)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert_corrupt(bytes(damaged), part(1))


def test_a_part_that_is_cut_off_or_goes_on_is_found() -> None:
    data = encoded(1, ENTRIES)
    for length in range(len(data)):
        assert_corrupt(data[:length], part(1))
        assert_corrupt(data[length + 1 :], part(1))
    assert_corrupt(data + b"\0", part(1))
    assert_corrupt(data + data, part(1))


def assert_corrupt(data: bytes, span: Span) -> None:
    with pytest.raises(Corrupt) as refusal:
        decode(data, span).entries()
    assert refusal.value.hint


@given(st.binary(max_size=200))
@example(struct.pack("<II", MAGIC, 0))
@example(struct.pack("<II", MAGIC, 2**32 - 1))
@example(struct.pack("<II", MAGIC, 1) + b"\n")
def test_arbitrary_bytes_are_corrupt(data: bytes) -> None:
    assert_corrupt(data, part(1))
    assert_corrupt(data, Span(1, 2, segment=True))


@given(st.binary(max_size=100), st.binary(max_size=100))
@example(b"{", b"")
@example(b"null", b"")
@example(b"[]", b"")
@example(b'"text"', b"")
@example(b"1", b"")
def test_arbitrary_bytes_with_a_digest_that_is_right_are_corrupt(line: bytes, frames: bytes) -> None:
    assert_corrupt(assembled(line.replace(b"\n", b"") + b"\n", frames), part(1))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.sampled_from(["data", "segment"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(
    st.sampled_from([HEADER, SEGMENT_HEADER]),
    st.dictionaries(st.sampled_from([*SEGMENT_HEADER, "seq", "exact", "newest_ms", "repaired"]), VALUES, max_size=3),
    st.sampled_from([frame(b"1\n"), frame(b"[1]"), frame(b""), b""]) | st.binary(max_size=30).map(frame),
    st.sampled_from([part(1), Span(1, 1, segment=True)]),
)
def test_whatever_a_header_says_there_are_entries_or_it_is_corrupt(
    header: dict[str, Any], change: dict[str, Any], frames: bytes, span: Span
) -> None:
    try:
        found = decode(assembled({**header, **change}, frames), span).entries()
    except Corrupt:
        return
    assert isinstance(found, list)


@pytest.mark.parametrize(
    ("change", "span"),
    [
        ({"seq": 2}, part(1)),
        ({"v": 2}, part(1)),
        ({"v": "1"}, part(1)),
        ({"kind": "segment"}, part(1)),
        ({"kind": "other"}, part(1)),
        ({"kind": ["data"]}, part(1)),
        ({"seq": "1"}, part(1)),
        ({"seq": True}, part(1)),
        ({"seq": 1.0}, part(1)),
        ({"epoch": -1}, part(1)),
        ({"epoch": None}, part(1)),
        ({"count": 0}, part(1)),
        ({"count": 2}, part(1)),
        ({"count": -1}, part(1)),
        ({"size": 0}, part(1)),
        ({"size": 1}, part(1)),
        ({"size": 3}, part(1)),
        ({"size": 2**40}, part(1)),
        ({"size": 2**63 - 1}, part(1)),
        ({"size": 2**64 - 1}, part(1)),
        ({"size": 10**30}, part(1)),
        ({"parts": [[]]}, part(1)),
        ({"parts": [1]}, part(1)),
        ({"parts": None}, part(1)),
        ({}, Span(1, 1, segment=True)),
        ({}, part(2)),
    ],
    ids=repr,
)
def test_a_header_that_does_not_fit_is_corrupt(change: dict[str, Any], span: Span) -> None:
    assert_corrupt(assembled({**HEADER, **change}, frame(b"1\n")), span)


@pytest.mark.parametrize("field", HEADER)
def test_a_header_without_a_field_is_corrupt(field: str) -> None:
    assert_corrupt(assembled({key: HEADER[key] for key in HEADER if key != field}, frame(b"1\n")), part(1))


@pytest.mark.parametrize(
    "change",
    [
        {"parts": []},
        {"parts": [[0, "0" * 16, 1, "data"]] * 2},
        {"parts": [[0, "0" * 16, 2, "data"]]},
        {"parts": [[0, "0" * 16, "1", "data"]]},
        {"parts": [[]]},
        {"newest_ms": float("inf")},
        {"newest_ms": "1"},
    ],
    ids=repr,
)
def test_a_segment_whose_list_of_parts_does_not_fit_is_corrupt(change: dict[str, Any]) -> None:
    assert_corrupt(assembled({**SEGMENT_HEADER, **change}, frame(b"1\n")), Span(1, 1, segment=True))


@pytest.mark.parametrize(
    "frames",
    [b"", frame(b"1\n") + frame(b""), frame(b"1\n")[:-1], frame(b"1") + frame(b"\n"), frame(b"1 "), b"1\n"],
    ids=repr,
)
def test_anything_but_one_data_frame_is_corrupt(frames: bytes) -> None:
    assert_corrupt(assembled(HEADER, frames), part(1))


@pytest.mark.parametrize(
    ("sizes", "most"), [((2, 1 << 20, MAX_SIZE_BYTES + 1, 2**50), 8 << 20), ((100 << 20,), 120 << 20)]
)
def test_a_small_object_cannot_fill_the_memory(sizes: tuple[int, ...], most: int) -> None:
    bomb = zstd.compress(bytes(100 << 20))
    assert len(bomb) < 100_000
    tracemalloc.start()
    try:
        for size in sizes:
            assert_corrupt(assembled({**HEADER, "size": size}, bomb), part(1))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < most


def test_a_segment_holds_the_entries_of_its_parts() -> None:
    parts = [decoded(4, [1, 2], epoch=2), decoded(5, [], "fence", 3), decoded(6, [2**70]), decoded(7, [{"a": 1}])]
    span = Span(4, 7, segment=True)
    found = decode(encode_segment(parts, writer="c", write_id="f" * 16), span)
    assert found.entries() == [1, 2, 2**70, {"a": 1}]
    assert (found.header.span, found.header.kind, found.header.epoch) == (span, "segment", 3)
    assert (found.header.count, found.header.exact) == (4, True)
    assert found.header.parts == tuple(
        (p.header.epoch, p.header.write_id, p.header.count, p.header.kind) for p in parts
    )


@pytest.mark.parametrize(
    ("after", "entries"),
    [(0, [1, 2, 3, 4]), (3, [1, 2, 3, 4]), (4, [3, 4]), (5, [3, 4]), (6, [4]), (7, []), (99, [])],
)
def test_a_segment_can_be_read_from_the_middle(after: int, entries: list[int]) -> None:
    parts = [decoded(4, [1, 2]), decoded(5, [], "fence", 1), decoded(6, [3]), decoded(7, [4])]
    found = decode(encode_segment(parts, writer="", write_id=""), Span(4, 7, segment=True))
    assert found.entries()[found.header.count - found.count_after(after) :] == entries


@pytest.mark.parametrize(("after", "entries"), [(0, [3, 4]), (4, [3, 4]), (5, [3, 4]), (6, [4]), (7, []), (8, [])])
def test_a_segment_holds_nothing_from_before_a_truncation(after: int, entries: list[int]) -> None:
    parts = [decoded(4, [2**70, 2]), decoded(5, [], "truncate"), decoded(6, [3]), decoded(7, [4])]
    found = decode(encode_segment(parts, writer="", write_id=""), Span(4, 7, segment=True))
    assert found.header.count == 2
    assert not found.header.exact
    assert found.truncated_parts == 2
    assert found.entries()[found.header.count - found.count_after(after) :] == entries


def test_a_part_is_left_out_or_read_whole() -> None:
    assert [decoded(4, [1, 2]).count_after(seq) for seq in (3, 4)] == [2, 0]


def test_a_segment_may_be_several_frames() -> None:
    header = {**SEGMENT_HEADER, "count": 2, "size": 4, "last": 2, "parts": [[0, "0" * 16, 1, "data"]] * 2}
    span = Span(1, 2, segment=True)
    assert decode(assembled(header, frame(b"1\n") + frame(b"2\n")), span).entries() == [1, 2]
    assert_corrupt(assembled(header, frame(b"1\n")), span)
    assert_corrupt(assembled(header, frame(b"1\n") + frame(b"2\n") + frame(b"3\n")), span)


def test_any_flipped_bit_of_a_segment_is_found() -> None:
    data = encode_segment([decoded(1, [1]), decoded(2, ["two"])], writer="c", write_id="f" * 16)
    for bit in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        assert_corrupt(bytes(damaged), Span(1, 2, segment=True))
