"""`Runtime`: the only place where the parts are wired together. Settings in, components out."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from claude_agent_sdk import ClaudeAgentOptions

from everturn.clock import SystemClock
from everturn.git.credentials import Source
from everturn.host.folders import RunFolders
from everturn.journal.journal import Journal
from everturn.journal.leftovers import LeftJournal, Leftover
from everturn.journal.reading import RunRef
from everturn.log.encryption import Keys, SealedObjects
from everturn.log.objects import run as run_blocking
from everturn.log.roles import Assignment
from everturn.log.stores import admit, connect, role_of
from everturn.mirrors.feed import MirrorFeed
from everturn.model import WorkItem
from everturn.registry import Registry, open_registry
from everturn.runner.handle import Run
from everturn.runner.parts import Parts
from everturn.runner.request import Prompt, Request
from everturn.runner.runner import Runner
from everturn.runner.sweeping import Sweeper
from everturn.settings import Settings
from everturn.telemetry import default_metrics
from everturn.transcripts.store import TranscriptStore
from everturn.upkeep.traces import upload
from everturn.workdirs import located
from everturn.workshop import Workshop

Key = TypeVar("Key")
Value = TypeVar("Value")

CONNECTIONS = 64  # of scopes used last; more runs than that at once make theirs anew where they need one


class Runtime:
    """Runs work items so that another worker can go on with them.

    Args:
        settings: Where things are; read from the environment and `everturn.toml` if not given.
        make_store: Makes the transcript stores, called like `TranscriptStore`; a subclass can watch them.
        keys: Where keys to encrypt transcripts with come from; goes before the setting `encryption_key_file`.
        git_credentials: Where credentials for git's remotes come from, by the beginning of their URLs: functions that
            are given the URL and return a token or a `Credential`. They go before the setting of this name.
        handle_signals: Whether SIGTERM, SIGINT and SIGHUP end the runs in progress before they end the program. Only
            what the program has left to its default is handled, and only while there are runs.

    Attributes:
        settings: The settings.
        registry: Which session carries which work item, and who holds it: `get`, `drop`, `sweep`, …

    Raises:
        Invalid: A setting is wrong, or a URL is not one we know. Nothing was written.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        make_store: Callable[..., TranscriptStore] = TranscriptStore,
        keys: Keys | None = None,
        git_credentials: Mapping[str, Source] | None = None,
        handle_signals: bool = True,
    ) -> None:
        self.settings = settings or Settings.load()
        self.registry: Registry = open_registry(
            self.settings.registry_url(), ages=self.settings.session_ages(), settings=self.settings
        )
        self._stores = _Stores(self.settings, make_store, keys)
        clock = SystemClock()
        workshop = Workshop.open(self.settings, self.registry, credentials=git_credentials, clock=clock)
        parts = Parts(
            registry=self.registry,
            stores=self._stores,
            workdirs=workshop.workdirs,
            access=workshop.access,
            folders=RunFolders(self.settings.runs_path(), clock=clock),
            settings=self.settings,
            clock=clock,
            metrics=default_metrics(),
            sweeper=Sweeper(self.registry, default_metrics(), workshop.sweeper),
            mirror=_feed(self.settings),
        )
        self._runner = Runner(parts, handle_signals=handle_signals)

    @classmethod
    def open(cls, **given: Any) -> Runtime:
        """Return a runtime; settings given here go before those of the environment.

        Args:
            given: Any of the settings in `docs/settings.md`: `store="s3://bucket/prefix"`, `worker="w1"`, …
        """
        return cls(Settings.load(**given))

    def run(
        self,
        work: WorkItem,
        *,
        prompt: Prompt,
        resume_prompt: Prompt | None = None,
        options: ClaudeAgentOptions | None = None,
        branch: str | None = None,
    ) -> Run:
        """Run a work item: begin its conversation, or go on with it if any worker has begun it before.

        The run claims the work item and keeps the claim until its end. The session id is stored before the agent
        starts, each frame of the transcript as it comes. Whoever ran the work item before can write nothing to the
        transcript from then on, and stops with `Fenced`.

        Args:
            work: The work item.
            prompt: What to say to an agent that has not worked on it yet: a text, the path of a file, or a function
                that is given the `SessionRecord` from before this run (or `None`) and returns the text.
            resume_prompt: What to say to one that has, after a crash as well; the prompt again if not given.
            options: What you want of the agent: tools, permissions, model. The conversation, its store and, with a
                repository, the directory are the run's own to decide.
            branch: What to work on in the repository: a branch, a ref such as `refs/pull/7/head`, or a commit. One
                workdir serves an agent for a branch; without one, a work item has a workdir of its own, on the
                default branch. It may be another one than last time: the conversation goes on all the same.

        Returns:
            An async iterator of the SDK's messages, with `session_id`, `resumed`, `epoch` and `cwd`.

        Raises:
            Invalid: The request cannot be run; raised at once. All other errors come while it is iterated.
            Held: Somebody else holds the work item.
            Fenced: Somebody else has taken it over; this run has ended.
            Unavailable: The claim could not be renewed in time, or something of the turn could not be stored: then
                after the last message.
        """
        work = located(work)
        self._stores.expect(work)
        return self._runner.run(Request(work, prompt, resume_prompt, options or ClaudeAgentOptions(), branch))

    def open_store(self, scope: str) -> TranscriptStore:
        """Open the transcript store of a scope, to read it, or to write as a guest.

        Blocks for two requests, or five if the store is new.

        Args:
            scope: The scope; a run's is its work item's key.

        Raises:
            EverturnError: As `TranscriptStore.open`.
        """
        self._stores.admit(scope)
        return self._stores.claimed(scope, epoch=0)


def open_transcripts(settings: Settings, scope: str, *, only_look: bool = False) -> TranscriptStore:
    """Open the transcript store of a scope as a guest; each session has one home.

    Args:
        settings: Where it is.
        scope: The scope.
        only_look: Ask nothing of the store yet, and write nothing to it.

    Raises:
        EverturnError: As `TranscriptStore.open`.
    """
    if not only_look:
        return TranscriptStore.open(settings.store_url(), scope=scope, any_cwd=True, settings=settings)
    objects = connect(settings.store_url(), settings, assignment=Assignment(scope))
    return TranscriptStore(objects, scope=scope, any_cwd=True, settings=settings)


def _feed(settings: Settings) -> MirrorFeed | None:
    """Return what keeps this machine's mirror up to date, if that is wanted and the store outlives the process."""
    lasts = not settings.store_url().startswith("memory:")
    return MirrorFeed.open(settings) if settings.live_mirror and lasts else None


class _Stores:
    """Connections to the object store: one that all runs share or, with a session role, one for each scope."""

    def __init__(self, settings: Settings, make_store: Callable[..., TranscriptStore], keys: Keys | None) -> None:
        self._settings = settings
        self._make_store = make_store
        self._keys = keys
        self.label = settings.store_url()
        self._role = role_of(self.label, settings)
        self._shared = None if self._role else connect(self.label, settings, keys)
        self._scoped: OrderedDict[Assignment, SealedObjects] = OrderedDict()
        self._assignments: OrderedDict[str, Assignment] = OrderedDict()
        self._lock = Lock()

    def expect(self, work: WorkItem) -> None:
        """Note the agent and the repository that the credentials of a work item's scope are to name."""
        with self._lock:
            _keep(self._assignments, work.key, Assignment(work.key, work.agent, work.repo))

    def objects(self, scope: str) -> SealedObjects:
        """Return the objects of the store, as they may be reached for a scope.

        Raises:
            Invalid: The scope is too long for a session policy.
        """
        if self._shared is not None:
            return self._shared
        with self._lock:
            assignment = self._assignments.get(scope) or Assignment(scope)
            known = self._scoped.get(assignment)
            made = known or connect(self.label, self._settings, self._keys, assignment=assignment, role=self._role)
            return _keep(self._scoped, assignment, made)

    def upload_trace(self, scope: str, run_id: str, path: Path, *, timeout_s: float, late: bool = False) -> None:
        run_blocking(upload(self.objects(scope), scope, run_id, path, late=late, timeout_s=timeout_s))

    def open_journal(self, ref: RunRef, path: Path) -> Journal:
        return Journal.open(self.objects(ref.scope), ref, path, settings=self._settings)

    def ship_journal(self, ref: RunRef, path: Path) -> Leftover:
        return LeftJournal(self.objects(ref.scope), ref, path, settings=self._settings).ship()

    def admit(self, scope: str) -> None:
        run_blocking(admit(self.objects(scope), scope, self.label))

    def claimed(self, scope: str, epoch: int) -> TranscriptStore:
        return self._make_store(self.objects(scope), scope=scope, any_cwd=True, epoch=epoch, settings=self._settings)


def _keep(kept: OrderedDict[Key, Value], key: Key, value: Value) -> Value:
    """Keep a value among those used last."""
    kept[key] = value
    kept.move_to_end(key)
    if len(kept) > CONNECTIONS:
        kept.popitem(last=False)
    return value
