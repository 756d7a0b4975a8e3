"""What the stack and the package have to agree on: folders, rights, keys and tags.

It imports nothing, so that a test can hold it against the package's own (docs/format.md, docs/credentials.md).
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

# The registry's table.
KEY = "work"
EXPIRES_AT = "expires_at"

# Session tags. Everturn sets the first only if the id is part of the work item's key and of its folder as it is.
TASK_ID_TAG = "everturn-task-id"
SCOPE_TAG = "everturn-task"
REPO_TAG = "everturn-repo"
ROW_OF_TASK = "task:{}"
FOLDER_OF_TASK = "task!3a{}"

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
