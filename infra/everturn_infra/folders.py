"""What lies in the store, and what may be done to it (docs/format.md, docs/credentials.md).

This module imports nothing, so that a test can hold it against the package's own list.
"""

from __future__ import annotations

# What a run does below each folder of its scope.
WRITTEN = ("sessions", "homes", "summaries", "catalogs", "journal", "damaged")
ADDED = ("traces",)
READ = ("holds",)
GATE = "format.json"

# Folders of logs. Nothing in them is written over, but for parts that a deletion takes the entries from.
LOGS = ("sessions", "journal")
# What is created once, and never written again by anybody.
CREATED = ("homes/*", "damaged/*", "traces/*", "holds/*", GATE)

# What lifecycle rules treat alike.
KEPT_AS_SESSIONS = ("sessions", "journal", "summaries", "catalogs", "homes")
SPARE_DAYS = 30  # after the retention: a lifecycle rule is what comes behind `everturn sessions expire`


def below(root: str, path: str) -> str:
    """Return a path of the format as a key of the bucket.

    Args:
        root: The store's prefix; may be empty.
        path: The path below it.
    """
    return f"{root}/{path}" if root else path
