"""What leaves this machine encrypted can be read with the key, and with nothing else."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from obstore.store import MemoryStore

from everturn.clock import Ids, ManualClock
from everturn.errors import Corrupt, Denied, Invalid, Unavailable
from everturn.log.encryption import Key, KeyFile, Keys, SealedObjects
from everturn.log.objects import BlockingObjects, run
from everturn.log.reader import log_exists, read
from everturn.log.writer import LogWriter
from log.bench import FOLDER, Recorder

OLD = Key("old", bytes(range(32)))
NEW = Key("new", bytes(range(32, 64)))


def ring(*keys: Key) -> Keys:
    def find(name: str | None) -> Key:
        for key in keys:
            if name in (None, key.name):
                return key
        raise KeyError(name)

    return find


@pytest.fixture
def inner() -> BlockingObjects:
    return BlockingObjects(MemoryStore(), "memory://")


def sealed(inner: BlockingObjects, *keys: Key) -> SealedObjects:
    return SealedObjects(inner, ring(*keys) if keys else None, Ids())


def append(objects: SealedObjects, *entries: Any) -> None:
    writer = LogWriter(objects, FOLDER, clock=ManualClock(), ids=Ids(), observer=Recorder())
    run(writer.append(list(entries)))


def raw(inner: BlockingObjects, key: str) -> bytes:
    stored = run(inner.get(key))
    assert stored is not None
    return stored.data


@given(st.binary(max_size=200))
def test_any_object_comes_back_equal(data: bytes) -> None:
    objects = sealed(BlockingObjects(MemoryStore(), "memory://"), OLD)
    run(objects.put("sessions/x", data))
    stored = run(objects.get("sessions/x"))
    assert stored is not None
    assert stored.data == data


def test_nothing_of_an_entry_is_legible_in_the_store(inner: BlockingObjects) -> None:
    append(sealed(inner, OLD), {"text": "the secret plan"})
    data = raw(inner, f"{FOLDER}/0000000001.jsonl.zst")
    assert b"secret" not in data
    assert b'"key":"old"' in data
    assert b"write_id" not in data
    with pytest.raises(zstd.ZstdError):
        zstd.decompress(data)


@pytest.mark.parametrize(("letter", "most"), [("k", 100), ("鍵", 33), ("\U0001f511", 16)])
def test_a_fence_is_told_by_its_size_however_long_the_names_in_it(
    inner: BlockingObjects, letter: str, most: int
) -> None:
    with pytest.raises(Invalid, match="no name for a key"):
        Key(letter * (most + 1), OLD.secret)
    objects = sealed(inner, Key(letter * most, OLD.secret))
    writer = LogWriter(
        objects, FOLDER, clock=ManualClock(), ids=Ids(), observer=Recorder(), epoch=1 << 52, writer="鍵" * 400
    )
    run(writer.open())
    assert not run(log_exists(objects, FOLDER))
    append(objects, "a")
    assert run(log_exists(objects, FOLDER))


def test_the_log_works_over_an_encrypted_store(inner: BlockingObjects) -> None:
    objects = sealed(inner, OLD)
    append(objects, {"n": 1})
    append(objects, {"n": 2})
    assert run(read(objects, FOLDER)).entries() == [{"n": 1}, {"n": 2}]


def test_after_a_rotation_old_and_new_objects_are_read(inner: BlockingObjects) -> None:
    append(sealed(inner, OLD), {"n": 1})
    append(sealed(inner, NEW, OLD), {"n": 2})
    assert b'"key":"new"' in raw(inner, f"{FOLDER}/0000000002.jsonl.zst")
    assert run(read(sealed(inner, NEW, OLD), FOLDER)).entries() == [{"n": 1}, {"n": 2}]


def test_what_was_written_before_encryption_was_turned_on_is_read(inner: BlockingObjects) -> None:
    append(sealed(inner), {"n": 1})
    append(sealed(inner, OLD), {"n": 2})
    assert run(read(sealed(inner, OLD), FOLDER)).entries() == [{"n": 1}, {"n": 2}]


def test_a_missing_key_is_named(inner: BlockingObjects) -> None:
    append(sealed(inner, OLD), {"n": 1})
    with pytest.raises(Denied, match="'old', which is not among ours"):
        run(read(sealed(inner, NEW), FOLDER))


def test_without_any_key_the_error_says_so(inner: BlockingObjects) -> None:
    append(sealed(inner, OLD), {"n": 1})
    with pytest.raises(Denied, match="no key is set"):
        run(read(sealed(inner), FOLDER))


def test_a_wrong_key_of_the_right_name_is_told_from_damage(inner: BlockingObjects) -> None:
    append(sealed(inner, OLD), {"n": 1})
    with pytest.raises(Denied, match="another key of the name 'old'"):
        run(read(sealed(inner, Key("old", NEW.secret)), FOLDER))


@pytest.mark.parametrize("position", [8, 60, 130, -1])
def test_a_flipped_bit_is_damage(inner: BlockingObjects, position: int) -> None:
    append(sealed(inner, OLD), {"n": 1})
    key = f"{FOLDER}/0000000001.jsonl.zst"
    data = bytearray(raw(inner, key))
    data[position] ^= 1
    run(inner.put(key, bytes(data)))
    with pytest.raises((Corrupt, Denied), match=r"0000000001\.jsonl\.zst"):
        run(read(sealed(inner, OLD), FOLDER))


def test_an_object_in_the_place_of_another_is_refused(inner: BlockingObjects) -> None:
    append(sealed(inner, OLD), {"n": 1})
    key = f"{FOLDER}/0000000001.jsonl.zst"
    other = key.replace("session/main", "another/main")
    run(inner.put(other, raw(inner, key)))
    with pytest.raises(Corrupt, match="another/main"):
        run(sealed(inner, OLD).get(other))


@given(st.binary(max_size=80))
def test_any_bytes_behind_the_mark_are_an_error_and_nothing_else(data: bytes) -> None:
    objects = BlockingObjects(MemoryStore(), "memory://")
    run(objects.put("sessions/x", b"\x5d\x2a\x4d\x18" + len(data).to_bytes(4, "little") + data))
    with pytest.raises((Corrupt, Denied)):
        run(sealed(objects, OLD).get("sessions/x"))


def test_the_gate_is_not_encrypted(inner: BlockingObjects) -> None:
    run(sealed(inner, OLD).create("format.json", b"{}"))
    assert raw(inner, "format.json") == b"{}"


def test_a_secret_does_not_show_in_a_key() -> None:
    assert "\\x01" not in repr(OLD)
    assert "old" in repr(OLD)


# --- Key files -----------------------------------------------------------------------------------------------------


def line(key: Key) -> str:
    return f"{key.name} {base64.b64encode(key.secret).decode()}\n"


def test_the_first_key_of_a_file_is_written_with_and_all_are_read_with(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("# ours\n  # and theirs\n" + line(NEW) + "\n" + line(OLD))
    keys = KeyFile(path)
    assert keys(None) == NEW
    assert keys("old") == OLD
    with pytest.raises(KeyError):
        keys("other")


def test_a_file_that_changes_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(line(OLD))
    keys = KeyFile(path)
    path.write_text(line(NEW) + line(OLD))
    assert keys(None) == NEW


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds no key"),
        ("name\n", "not a name and a key"),
        ("name !!!\n", "not a name and a key"),
        ("name c2hvcnQ=\n", "has 5 bytes"),
        ("one two three\n", "not a name and a key"),
    ],
)
def test_a_file_that_is_wrong_is_refused_in_one_sentence(tmp_path: Path, text: str, complaint: str) -> None:
    path = tmp_path / "keys"
    path.write_text(text)
    with pytest.raises(Invalid, match=complaint):
        KeyFile(path)


@pytest.mark.parametrize("unfinished", ["", "new", "new AAAA"])
def test_while_a_file_is_being_written_the_keys_from_before_go_on(tmp_path: Path, unfinished: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"old {base64.b64encode(bytes(32)).decode()}\n")
    keys = KeyFile(path)
    path.write_text(unfinished)
    assert keys(None).name == keys("old").name == "old"
    with pytest.raises(Invalid):
        keys("new")
    path.write_text(f"new {base64.b64encode(bytes(32)).decode()}\n")
    assert keys(None).name == "new"


@pytest.mark.parametrize(("raised", "error"), [(TimeoutError("no vault"), Unavailable), (KeyError(), Denied)])
def test_what_goes_wrong_in_a_function_for_keys_is_an_error_of_ours(
    inner: BlockingObjects, raised: Exception, error: type[Exception]
) -> None:
    def keys(_name: str | None) -> Key:
        raise raised

    with pytest.raises(error):
        run(SealedObjects(inner, keys, Ids()).create("a", b"b"))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Invalid, match="cannot be read"):
        KeyFile(tmp_path / "none")
