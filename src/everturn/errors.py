"""The errors a caller can act on, named by what a handler would do.

    EverturnError
    ├── Invalid       the input or a setting is wrong: mend it, then call again
    ├── Denied        credentials, a key or a file's permissions do not let us: mend them
    ├── NotFound      what was named is not there
    ├── Conflict      somebody else has it, or has changed it: look, then decide
    │   └── Held      a live worker has it, and until when: wait, or leave it
    ├── Fenced        a newer owner has taken over: stop at once
    ├── Unavailable   it did not answer in time: try again later
    └── Corrupt       what is stored cannot be trusted: stop and repair

Every error carries one sentence that says what happened and a hint that says what to do.
"""

from __future__ import annotations


class EverturnError(Exception):
    """The root of the tree.

    Args:
        message: One sentence, without a final full stop.
        hint: What the reader can do about it.
    """

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})"


class Invalid(EverturnError):
    """The input or a setting is wrong. Nothing was written."""


class Denied(EverturnError):
    """Credentials or a key were refused, or there are none; or we may not use a file or a folder of this machine."""


class NotFound(EverturnError):
    """A bucket, repository, session or file that was named does not exist."""


class Conflict(EverturnError):
    """Somebody else holds what was asked for, or changed it in between."""


class Held(Conflict):
    """A live worker holds the work item.

    Args:
        message: See `EverturnError`.
        hint: See `EverturnError`.
        holder: The name of the worker.
        run_id: Its run.
        epoch: Its claim's number.
        until: When its claim ends unless it is renewed; seconds since the Unix epoch.
    """

    def __init__(  # what a handler needs to decide
        self, message: str, *, hint: str, holder: str, run_id: str, epoch: int, until: float
    ) -> None:
        super().__init__(message, hint=hint)
        self.holder = holder
        self.run_id = run_id
        self.epoch = epoch
        self.until = until


class Fenced(EverturnError):
    """A newer owner has taken over the log. The writer must stop; what it had acknowledged is safe."""


class Unavailable(EverturnError):
    """A store or service did not answer in time. Whether the last write took effect is not known yet."""


class Corrupt(EverturnError):
    """Something stored is missing or damaged. Nothing was skipped or guessed."""
