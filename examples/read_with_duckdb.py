"""Ask DuckDB about a transcript, as it lies in the store: parts and segments are plain .jsonl.zst files.

Parts that lie inside a segment are left out, a missing part is an error, and of entries with the same uuid the first
one counts (docs/format.md, section 6). DuckDB does not look at the headers: deleted sessions are for read_plain.py.

    python read_with_duckdb.py store/sessions/SCOPE/PROJECT_KEY/SESSION_ID/main
    python read_with_duckdb.py store/sessions/SCOPE/PROJECT_KEY/SESSION_ID/main \
        "SELECT entry->>'type' AS type, count(*) FROM entries GROUP BY ALL ORDER BY ALL"
"""

import re
import sys
from pathlib import Path

import duckdb

ENTRIES = """
CREATE VIEW entries AS
SELECT place, json AS entry
FROM (SELECT json, row_number() OVER () AS place
      FROM read_json($files, records = false, format = 'newline_delimited', compression = 'zstd',
                     columns = {json: 'JSON'}, maximum_object_size = 67108864))
QUALIFY json->>'uuid' IS NULL OR row_number() OVER (PARTITION BY json->>'uuid' ORDER BY place) = 1
ORDER BY place
"""


def open_log(folder: Path) -> duckdb.DuckDBPyConnection:
    names = [(re.fullmatch(r"(\d{10})(?:-(\d{10}))?\.jsonl\.zst", file.name), file) for file in folder.iterdir()]
    spans = [(int(name[1]), int(name[2] or name[1]), str(file)) for name, file in names if name]
    chosen, done = [], 0
    for first, last, file in sorted(spans, key=lambda span: (span[0], -span[1])):
        if last <= done:
            continue
        if first != done + 1:
            raise ValueError(f"{folder} has a hole or an overlap: {file} follows part {done}")
        chosen.append(file)
        done = last
    connection = duckdb.connect()
    quoted = ", ".join("'" + file.replace("'", "''") + "'" for file in chosen)
    connection.execute(ENTRIES.replace("$files", f"[{quoted}]"))
    return connection


if __name__ == "__main__":
    query = sys.argv[2] if len(sys.argv) > 2 else "SELECT entry FROM entries"
    for row in open_log(Path(sys.argv[1])).execute(query).fetchall():
        print(*row, sep="\t")
