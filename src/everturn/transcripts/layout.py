"""Where a scope's transcripts lie (docs/format.md, section 1)."""

from __future__ import annotations

from everturn.log.names import escape


class Layout:
    """The keys and folders of one scope.

    Args:
        scope: The task or work item.

    Raises:
        Invalid: The scope is not a usable name. The same goes for every name given to a method.
    """

    def __init__(self, scope: str) -> None:
        self.scope = scope
        self._scope = escape(scope, "scope")

    @property
    def projects(self) -> str:
        """The folder that holds one folder per project key."""
        return f"sessions/{self._scope}"

    def sessions(self, project_key: str) -> str:
        """The folder that holds one folder per session."""
        return f"{self.projects}/{escape(project_key, 'project key')}"

    def session(self, project_key: str, session_id: str) -> str:
        """The folder of one session."""
        return f"{self.sessions(project_key)}/{escape(session_id, 'session id')}"

    def log(self, project_key: str, session_id: str, subpath: str | None) -> str:
        """The folder of a log: the main transcript, or a sub-transcript."""
        session = self.session(project_key, session_id)
        return f"{session}/main" if subpath is None else f"{session}/sub/{escape(subpath, 'subpath')}"

    def damaged(self, project_key: str, session_id: str, subpath: str | None = None) -> str:
        """The folder of what a repair has taken away from a session, or from a sub-transcript of it."""
        place = (
            self.session(project_key, session_id) if subpath is None else self.log(project_key, session_id, subpath)
        )
        return f"damaged/{place.removeprefix('sessions/')}"

    def summaries(self, project_key: str) -> str:
        """The folder that holds one summary per session."""
        return f"summaries/{self._scope}/{escape(project_key, 'project key')}"

    def summary(self, project_key: str, session_id: str) -> str:
        """The key of a session's summary."""
        return f"{self.summaries(project_key)}/{escape(session_id, 'session id')}.json"

    def catalog(self, project_key: str) -> str:
        """The key of a project's summaries in one object."""
        return f"catalogs/{self._scope}/{escape(project_key, 'project key')}.json"

    def home(self, session_id: str) -> str:
        """The key of the note that says where a session lives."""
        return f"homes/{self._scope}/{escape(session_id, 'session id')}.json"

    def trace(self, run_id: str) -> str:
        """The key of a run's trace."""
        return f"traces/{self._scope}/{escape(run_id, 'run id')}.jsonl.gz"
