"""Read a transcript from a local folder store with nothing but Python and docs/format.md, sections 3, 4, 6 and 7.

python read_plain.py store/sessions/SCOPE/PROJECT_KEY/SESSION_ID/main
"""

import hashlib
import json
import re
import struct
import sys
from pathlib import Path

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd


def read_log(folder: Path) -> list:
    batches, begin = [], None
    for first, last, file in reversed(longest_objects(folder)):
        if begin is not None and last < begin - 1:
            break  # a hole
        lines, parts = read_object(file, first, last)
        gone = max((place for place, (*_, kind) in enumerate(parts, 1) if kind == "truncate"), default=0)
        until = None if begin is None else begin - first  # segments may overlap
        batches.append(lines[: sum(count for _, _, count, _ in parts[gone:until])])
        begin = 1 if gone else first
        if gone:  # everything before was deleted
            break
    if begin not in (None, 1):
        raise ValueError(f"{folder} has a hole: part {begin - 1} is missing")
    kept = {}  # of entries with the same uuid, the first one counts
    for place, line in enumerate(line for batch in reversed(batches) for line in batch):
        entry = json.loads(line)
        uuid = entry.get("uuid") if isinstance(entry, dict) else None
        kept.setdefault(uuid if isinstance(uuid, str) else place, entry)
    return list(kept.values())


def longest_objects(folder: Path) -> list:
    names = (re.fullmatch(r"(\d{10})-?(\d{10})?\.jsonl\.zst", file.name) for file in folder.iterdir())
    spans = [(int(name[1]), int(name[2] or name[1]), folder / name[0]) for name in names if name]
    longest = []
    for span in sorted(spans, key=lambda span: (span[0], -span[1])):
        if not longest or span[1] > longest[-1][1]:  # the others lie inside a segment
            longest.append(span)
    return longest


def read_object(file: Path, first: int, last: int) -> tuple[list, list]:
    data = file.read_bytes()
    magic, length = struct.unpack_from("<II", data)
    header, newline, digest = data[8 : 8 + length].partition(b"\n")
    found = hashlib.sha256(header + newline + data[8 + length :]).hexdigest()
    if magic != 0x184D2A5E or digest != f"sha256:{found}\n".encode():
        raise ValueError(f"{file} is damaged, or encrypted")
    told, lines = json.loads(header), zstd.decompress(data).split(b"\n")[:-1]
    span = [told["first"], told["last"]] if told["kind"] == "segment" else [told["seq"]] * 2
    if span != [first, last] or told["count"] != len(lines):
        raise ValueError(f"{file} does not hold what it says")
    return lines, told.get("parts") or [[told["epoch"], told["write_id"], told["count"], told["kind"]]]


if __name__ == "__main__":
    for entry in read_log(Path(sys.argv[1])):
        print(json.dumps(entry))
