"""Caches: for each repository a bare one on this machine, with what its remote has. Workdirs borrow from it.

Only we write to a cache, and only under its lock. Nothing is ever dropped from it, as workdirs may need what the
remote has forgotten. What git is to believe about it, its configuration above all, is written anew before each use:
whatever an agent may have put there is never read.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from everturn.errors import EverturnError, Invalid, NotFound
from everturn.git.deleting import remove
from everturn.git.gitdir import Remote, cache_config, make_folder, packed_refs, write_file
from everturn.git.locks import Lock
from everturn.git.runner import INCONCLUSIVE, NOWHERE, GaveUp, Git
from everturn.model import RepositoryOptions
from everturn.telemetry import Metrics, get_logger
from everturn.workdirs.names import Target
from everturn.workdirs.records import CacheRecord
from everturn.workdirs.root import Root
from everturn.workdirs.salvage import (
    REPLACEABLE,
    has_nothing_left,
    looks_whole,
    move_good,
    readable_refs,
    unpack_rest,
)

HEADS = "+refs/heads/*:refs/remotes/origin/*"
TAGS = "+refs/tags/*:refs/tags/*"
PACKS = 20  # more are merged
PACKS_MORE = 5  # and if that fails, only once there are that many more of them


@dataclass(frozen=True, slots=True)
class Tip:
    """What a workdir is to show, as far as the cache has it.

    Attributes:
        commit: The commit; `None`: the repository has none yet.
        branch: The local branch to be on; `None`: none, the commit alone.
        refs: What the remote has, and what it was last known to be: full names and ids, sorted as git wants them.
        default_branch: The remote's; `None`: it does not say.
        is_new_branch: Whether the remote does not have the branch: it begins at the default branch.
        shallow: The commits that the cache has no parents of, as git writes them.
    """

    commit: str | None
    branch: str | None
    refs: tuple[tuple[str, str], ...]
    default_branch: str | None
    is_new_branch: bool
    shallow: str


class Cache:
    """The cache of one repository.

    Args:
        root: Where it is.
        git: Runs git.
        name: Its name.
        repo: The repository's URL or path.
        options: How much of it to have.
        lock_timeout_s: How long to wait for others that are at work on it.
        metrics: What is counted.
    """

    def __init__(  # what a cache is of, and who works on it
        self,
        root: Root,
        git: Git,
        name: str,
        repo: str,
        options: RepositoryOptions,
        *,
        lock_timeout_s: float,
        metrics: Metrics,
    ) -> None:
        self._root = root
        self._git = git
        self.name = name
        self._repo = repo
        self._options = options
        self._lock_timeout_s = lock_timeout_s
        self._metrics = metrics
        self._log = get_logger()
        self.folder = root.caches / name
        self.path = self.folder / "repo.git"
        self.remote = Remote(repo, blobless=options.blobless)

    @property
    def objects(self) -> Path:
        """Where its objects are."""
        return self.path / "objects"

    # --- What the remote has ----------------------------------------------------------------------------------------

    def ask(self, target: Target, stop: threading.Event | None = None) -> dict[str, str]:
        """Ask the remote what it has. Makes nothing. Blocks for one request.

        Returns:
            The ids of `HEAD` and of the target's ref, as far as there are any; as `symref` what `HEAD` stands for.

        Raises:
            NotFound: There is no such repository.
            Denied: It wants credentials that git does not have.
            Unavailable: git failed, or took too long.
        """
        wanted = {"HEAD", target.ref} - {""}
        arguments = ["ls-remote", "--symref", "--quiet", "--end-of-options", self._repo, *sorted(wanted)]
        said: dict[str, str] = {}
        for line in self._git.run(arguments, Path("/"), stop, online=True, extra=NOWHERE).split("\n"):
            value, _, name = line.partition("\t")
            if value.startswith("ref: ") and name == "HEAD":
                said |= _symref(value.removeprefix("ref: "))
            elif name in wanted:
                said[name] = value
        return said

    def prepare(self, target: Target, stop: threading.Event | None = None) -> Tip:
        """Have what a workdir is to show. Blocks for a request, and for a second one if something is missing here.

        Many may ask for it at once: the first fetches, and the others find what they wanted.

        Raises:
            NotFound: There is no such repository, ref or commit.
            Denied: The remote wants credentials that git does not have.
            Unavailable: git failed or took too long, or others were at work on the cache for too long.
        """
        said = {} if target.kind == "commit" else self.ask(target, stop)
        with self._locked(stop) as lock:
            tip = self._obtain_or_mend(target, said, lock, stop)
            self._note(tip)
        return tip

    def looks_whole(self, stop: threading.Event | None = None) -> bool:
        """Tell whether workdirs can borrow from it, as far as that is seen at a glance.

        Takes no lock, unless there is something wrong: then perhaps somebody is just at work on it.

        Raises:
            Unavailable: The waiting was stopped, or others were at work on it for too long.
        """
        if self._seems_whole():
            return True
        if not self.path.is_dir():
            return False
        with self._locked(stop):
            return self._seems_whole()

    def _seems_whole(self) -> bool:
        if any(os.path.lexists(self.objects / name) for name in (*REPLACEABLE, "info/alternates")):
            return False
        return (self.path / "HEAD").is_file() and not self._damaged() and looks_whole(self.objects)

    def settle(self, stop: threading.Event | None = None) -> bool:
        """Mend what can be mended without the remote, and tell whether nothing is left that needs it.

        Raises:
            Unavailable: git was stopped, or others were at work on the cache for too long.
        """
        with self._locked(stop):
            if not self._is_whole(stop):
                self._begin_anew(stop)
            return not self._damaged()

    def restore(self, stop: threading.Event | None = None) -> None:
        """Have in it again what the remote has, for workdirs that borrow from it: it, or a part of it, was lost.

        Raises:
            EverturnError: As `prepare`.
        """
        with self._locked(stop) as lock:
            self._fetch([HEADS, TAGS], lock, stop)

    @contextmanager
    def _locked(self, stop: threading.Event | None) -> Iterator[Lock]:
        with self._root.locked_cache(self.name, self._lock_timeout_s, stop) as lock:
            self.tidy()
            if self._damaged():
                self._salvage(stop)  # whoever began it was killed
            yield lock

    def _obtain_or_mend(
        self, target: Target, said: Mapping[str, str], lock: Lock, stop: threading.Event | None
    ) -> Tip:
        if looks_whole(self.objects):
            try:
                return self._obtain(target, said, lock, stop)
            except (_NotThere, *INCONCLUSIVE):
                raise  # the cache is not to blame
            except EverturnError:
                if (stop is not None and stop.is_set()) or self.is_sound(stop):
                    raise
        self._begin_anew(stop)
        return self._obtain(target, said, lock, stop)

    def _obtain(self, target: Target, said: Mapping[str, str], lock: Lock, stop: threading.Event | None) -> Tip:
        if self._is_current(target, said, stop) and not self._damaged():
            self._metrics.fetches.labels("skipped").inc()
            return self._tip(target, said, stop)
        refspecs = [HEADS, TAGS]
        if target.kind == "ref" and target.ref in said:
            refspecs.append(f"+{target.ref}:{_tracking(target.ref)}")
        if "HEAD" in said and "symref" not in said:
            refspecs.append(f"+HEAD:{_tracking('HEAD')}")  # it may be on a commit that no branch has
        self._fetch(refspecs, lock, stop)
        if target.kind == "commit" and not self._has(target.name, stop):
            self._fetch_commit(target.name, lock, stop)
        return self._tip(target, said, stop)

    def _fetch_commit(self, commit: str, lock: Lock, stop: threading.Event | None) -> None:
        """Ask for a commit itself: forges hand out what no branch has any more."""
        try:
            self._fetch([commit], lock, stop)
        except EverturnError as error:
            if "not our ref" in error.message:
                raise _no_such("commit", commit) from error
            raise

    def _is_current(self, target: Target, said: Mapping[str, str], stop: threading.Event | None) -> bool:
        """Tell whether what was asked for is here. What else the remote has may have changed: nobody asked for it."""
        if target.kind == "commit":
            return self._has(target.name, stop)
        wanted = {_tracking(said["symref"]): said.get("HEAD")} if "symref" in said else {}
        if target.kind != "default":
            wanted[_tracking(target.ref)] = said.get(target.ref)
        known = dict(self._refs(*wanted))
        if any(known.get(name) != commit for name, commit in wanted.items()):
            return False
        return all(self._has(commit, stop) for name, commit in said.items() if name != "symref")

    def _has(self, commit: str, stop: threading.Event | None) -> bool:
        try:
            self._run(["cat-file", "-e", f"{commit}^{{commit}}"], stop, online=True)
        except INCONCLUSIVE:
            raise
        except EverturnError:
            return False
        return True

    def _fetch(self, refspecs: Sequence[str], lock: Lock, stop: threading.Event | None) -> None:
        try:
            self._fetch_refs(refspecs, lock, stop)
        except EverturnError:
            self._metrics.fetches.labels("failed").inc()
            raise
        self._metrics.fetches.labels("done").inc()
        was_damaged = bool(self._damaged())
        if was_damaged:
            self._salvage_rest(lock, stop)
        packs_over = sum(1 for _ in self.objects.glob("pack/*.pack")) - PACKS
        if was_damaged or (packs_over > 0 and packs_over % PACKS_MORE == 1):
            self._merge_packs(lock, stop)
        self._run(["pack-refs", "--all", "--prune"], stop, lock=lock)

    def _merge_packs(self, lock: Lock, stop: threading.Event | None) -> None:
        """Have fewer packs, and no loose objects. Nothing is dropped. It works as well, if slower, without."""
        # What is promised by the remote has to stay apart from the rest, which only a repack of everything heeds.
        how = ["-a", "--keep-unreachable"] if self._options.blobless else ["--geometric=2"]
        try:
            self._run(["repack", "-d", "-l", "-q", *how], stop, lock=lock)
        except EverturnError as error:
            if stop is not None and stop.is_set():
                raise
            self._log.warning("cache_not_packed", cache=self.name, error=str(error))

    def _fetch_refs(self, refspecs: Sequence[str], lock: Lock, stop: threading.Event | None) -> None:
        options = [
            "--quiet",
            "--prune",
            "--no-tags",
            "--no-auto-gc",
            "--no-write-fetch-head",
            "--no-recurse-submodules",
        ]
        if self._options.depth is not None:
            options += [f"--depth={self._options.depth}"]
        if self._options.blobless:
            options += ["--filter=blob:none"]
        arguments = ["fetch", *options, "--end-of-options", "origin", *refspecs]
        self._run(arguments, stop, online=True, lock=lock)

    def _tip(self, target: Target, said: Mapping[str, str], stop: threading.Event | None) -> Tip:
        refs = self._refs("refs/remotes", "refs/tags", *([_tracking(target.ref)] if target.ref else []))
        known = dict(refs)
        default = said.get("symref", "").removeprefix("refs/heads/") or None
        if default is None and "HEAD" not in said:
            default = self._known_default()  # nobody has asked, or the remote has no commit there yet
        begin = known.get(f"refs/remotes/origin/{default}") or said.get("HEAD")
        commit, branch, is_new = begin, default, False  # with no branch if the remote's HEAD is on none
        if target.kind == "branch":
            theirs = known.get(_tracking(target.ref))
            commit, branch, is_new = theirs or begin, target.name, theirs is None
        elif target.kind == "ref":
            commit, branch = known.get(_tracking(target.ref)) if target.ref in said else None, None
        elif target.kind == "commit":
            commit, branch = target.name if self._has(target.name, stop) else None, None
        if commit is None and target.kind in ("ref", "commit"):
            raise _no_such(target.kind, target.name)
        shallow = self.path / "shallow"
        return Tip(
            commit,
            branch or (None if commit else "main"),
            tuple((name, value) for name, value in refs if name.startswith(("refs/remotes/", "refs/tags/"))),
            default,
            is_new,
            shallow.read_text(encoding="ascii") if shallow.is_file() else "",
        )

    def _refs(self, *wanted: str) -> list[tuple[str, str]]:
        """Return those of these refs, or below these folders, that there are. There may be many that nobody wants."""
        if not wanted:
            return []
        # A name may have what Unicode takes for the end of a line.
        lines = self._run(["for-each-ref", "--format=%(refname) %(objectname)", *wanted]).split("\n")
        pairs = (line.rpartition(" ") for line in lines if line)
        return sorted((name, value) for name, _, value in pairs)

    def _known_default(self) -> str | None:
        record = CacheRecord.read(self._root, self.name)
        return None if record is None else record.default_branch

    def _note(self, tip: Tip) -> None:
        now = self._root.clock.now()
        record = CacheRecord.read(self._root, self.name) or CacheRecord(self.name, self._repo, created_at=now)
        changed = record.but(
            repo=self._repo,
            last_used_at=now,
            default_branch=tip.default_branch,
            blobless=self._options.blobless,
            depth=self._options.depth,
        )
        changed.write(self._root)

    # --- Keeping it sound -------------------------------------------------------------------------------------------

    def is_sound(self, stop: threading.Event | None = None) -> bool:
        """Look whether everything is there that its refs need. Reads all commits: seconds for a large one."""
        try:
            self._run(["fsck", "--connectivity-only", "--no-dangling", "--no-progress"], stop)
        except INCONCLUSIVE:
            return True  # nobody knows, and that is no reason to give it up
        except EverturnError:
            return False
        return True

    def mend(self, stop: threading.Event | None = None) -> bool:
        """Look whether it is damaged, and if so, begin it anew with what is good in it, and with what the remote has.

        Returns:
            Whether it was damaged.

        Raises:
            EverturnError: As `prepare`.
        """
        with self._locked(stop) as lock:
            if self._is_whole(stop) and self._reads_all(stop):
                return False
            self._begin_anew(stop)
            self._fetch([HEADS, TAGS], lock, stop)
        return True

    def _is_whole(self, stop: threading.Event | None) -> bool:
        return looks_whole(self.objects) and self.is_sound(stop)

    def _reads_all(self, stop: threading.Event | None) -> bool:
        """Read every object: a file may be damaged in the middle."""
        try:
            for index in sorted(self.objects.glob("pack/*.idx")):
                self._run(["verify-pack", str(index)], stop)
        except INCONCLUSIVE:
            return True
        except EverturnError:
            return False
        return True

    def _begin_anew(self, stop: threading.Event | None) -> None:
        """Set what is there aside, under the lock, and go on with what is good in it."""
        self._metrics.cache_repairs.inc()
        self._log.warning("cache_damaged", cache=self.name)
        self.path.rename(self.folder / f"damaged-{self._root.ids.token()}")
        self.tidy()
        self._salvage(stop)

    def _damaged(self) -> list[Path]:
        """Return what was set aside, and may still have something that is nowhere else."""
        return sorted(self.folder.glob("damaged-*"))

    def _salvage(self, stop: threading.Event | None) -> None:
        """Take over what can be read: whole packs, and the refs if all that they need is there. The rest has to wait
        until the remote was asked, since then little of it is missing."""
        for damaged in self._damaged():
            move_good(damaged / "objects", self.objects, lambda arguments: self._run(arguments, stop))
            refs = {**readable_refs(damaged), **readable_refs(self.path)}
            shallow = damaged / "shallow"
            if shallow.is_file() and not shallow.is_symlink() and not (self.path / "shallow").exists():
                shutil.copyfile(shallow, self.path / "shallow")
            write_file(self.path / "packed-refs", packed_refs(list(refs.items())))
            if not self.is_sound(stop):
                remove(self.path / "packed-refs")
                remove(self.path / "shallow")
            if has_nothing_left(damaged / "objects"):
                self._root.discard(damaged)

    def _salvage_rest(self, lock: Lock, stop: threading.Event | None) -> None:
        def unpack(pack: Path) -> None:
            with pack.open("rb") as file:
                self._run(["unpack-objects", "-r", "-q"], stop, lock=lock, text=file)

        for damaged in self._damaged():
            try:
                unpack_rest(damaged / "objects", unpack)
            except GaveUp as error:
                if stop is not None and stop.is_set():
                    raise
                self._log.warning("cache_not_salvaged", cache=self.name, error=str(error))
                damaged.rename(damaged.with_name(damaged.name.replace("damaged-", "left-")))  # for a person to look
            else:
                self._root.discard(damaged)

    def tidy(self) -> None:
        """Have everything as it has to be before git looks at it. Under the lock: it makes what is not there."""
        _tidy(self.path, self.remote)

    def _run(
        self,
        arguments: Sequence[str],
        stop: threading.Event | None = None,
        *,
        online: bool = False,
        lock: Lock | None = None,
        text: BinaryIO | None = None,
    ) -> str:
        here = {"GIT_DIR": str(self.path)}
        return self._git.run(arguments, self.path, stop, online=online, extra=here, lock=lock, text=text)


def tidy_noted(root: Root, name: str) -> None:
    """Have a cache as it has to be before git looks at it, for whoever knows no more of it than its name.

    Under its lock. One that is not there, or of which nothing is noted, stays as it is.
    """
    record = CacheRecord.read(root, name)
    if record is not None and record.repository(root).is_dir():
        _tidy(record.repository(root), Remote(record.repo, blobless=record.blobless))


def _tidy(path: Path, remote: Remote) -> None:
    for name in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "refs/remotes/origin"):
        make_folder(path, name)
    for left in (
        *path.glob("*.lock"),
        *(path / "refs").rglob("*.lock"),
        *path.glob("objects/**/tmp_*"),
        *path.glob("objects/pack/.tmp-*"),
    ):
        remove(left)  # of a git that was killed
    for name in ("hooks", "info", "config.worktree", "commondir", "worktrees", "modules", "branches", "remotes"):
        remove(path / name)
    for name in (*REPLACEABLE, "info/alternates"):
        remove(path / "objects" / name)
    write_file(path / "HEAD", "ref: refs/heads/none\n")
    write_file(path / "config", cache_config(remote))


def _symref(name: str) -> dict[str, str]:
    """Return what `HEAD` stands for, if that is a branch: git itself does not look what a remote calls it."""
    with suppress(Invalid):
        if name.startswith("refs/heads/"):
            return {"symref": Target.parse(name).ref}
    return {}


class _NotThere(NotFound):
    """The remote does not have what was asked for."""


def _no_such(kind: str, name: str) -> _NotThere:
    return _NotThere(f"the repository has no {kind} {name[:40]}", hint="check its name, and that it was pushed")


def _tracking(ref: str) -> str:
    """Return where the cache keeps a ref of the remote."""
    if ref.startswith("refs/heads/"):
        return f"refs/remotes/origin/{ref.removeprefix('refs/heads/')}"
    return f"refs/everturn/fetched/{ref.removeprefix('refs/').replace('/', '-')}"  # none is in another one's way
