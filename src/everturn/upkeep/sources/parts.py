"""Sessions of the SDK's reference adapter for S3: `<prefix>/<project key>/<session id>/[<subpath>/]part-….jsonl`.

Each append has written an object of JSON lines. Their names begin with the writer's clock, and sort in the order in
which the adapter reads them.
"""

from __future__ import annotations

from typing import Any

from everturn.errors import Conflict
from everturn.log.objects import run
from everturn.log.stores import locate
from everturn.settings import Settings
from everturn.upkeep.sources.base import Line, grouped, split_url

AT_ONCE = 64  # so many objects are held in memory beside what they say
# The source is read as it was written: what the settings say about encryption is about where sessions go.
_PLAIN: dict[str, Any] = {
    "s3_express": None,
    "s3_sse": None,
    "s3_sse_kms_key": None,
    "s3_sse_bucket_key": None,
    "s3_sse_customer_key_file": None,
}
_PARAMETERS = {"region": "aws_region", "endpoint": "aws_endpoint_url_s3", "profile": "aws_profile"}


class PartObjects:
    """The sessions below a prefix of a bucket.

    Args:
        url: `s3://bucket/prefix`; `?region=`, `?endpoint=` and `?profile=` go before the settings.
        settings: Where S3 is, whose credentials, and how patient to be.

    Raises:
        Invalid: The URL or a setting is wrong.
    """

    def __init__(self, url: str, settings: Settings) -> None:
        url, given = split_url(url, *_PARAMETERS)
        self.label = url.rstrip("/")
        changes = _PLAIN | {_PARAMETERS[name]: value for name, value in given.items()}
        self._objects = locate(self.label, settings.model_copy(update=changes))

    def names(self) -> list[tuple[str, str]]:
        """See `Source.names`. One request for the projects, and one for each of them."""
        projects = sorted(run(self._objects.list_folders("")))
        return [(project, session) for project in projects for session in self._sessions(project)]

    def _sessions(self, project_key: str) -> list[str]:
        return sorted(run(self._objects.list_folders(project_key)))

    def logs(self, project_key: str, session_id: str) -> dict[str | None, list[Line]]:
        """See `Source.logs`. A request for each thousand objects, and one for each object.

        Empty objects say nothing, and some cannot be asked for: consoles and mounts make one for the folder itself.
        """
        folder = f"{project_key}/{session_id}/"
        listed = run(self._objects.listing(folder.removesuffix("/")))
        keys = sorted(item.key for item in listed if item.size_bytes)
        named = grouped((key.removeprefix(folder).rpartition("/")[0] or None, key) for key in keys)
        return {subpath: self._lines(its) for subpath, its in named.items()}

    def _lines(self, keys: list[str]) -> list[Line]:
        lines = []
        for start in range(0, len(keys), AT_ONCE):
            some = keys[start : start + AT_ONCE]
            for key, stored in zip(some, run(self._objects.get_many(some)), strict=True):
                if stored is None:
                    raise Conflict(
                        f"{self.label}/{key} was deleted while the session was read",
                        hint="who deletes there? import it again",
                    )
                rows = enumerate(stored.data.split(b"\n"), 1)
                lines += [Line(f"{self.label}/{key}", number, row) for number, row in rows if row.strip()]
        return lines

    def close(self) -> None:
        """See `Source.close`. There is nothing to let go of."""
