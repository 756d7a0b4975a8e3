"""Working trees: each a repository of its own, whose objects are, for the most part, those of a cache.

An agent has such a repository to itself: its configuration, its hooks, its branches and its stash are nobody else's,
and what it breaks is its own. Only the objects of the cache are shared, and git never writes to those it borrows.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from everturn.errors import EverturnError, Invalid
from everturn.git.deleting import remove
from everturn.git.gitdir import Remote, make_folder, packed_refs, workdir_config, write_file
from everturn.git.locks import Lock
from everturn.git.runner import INCONCLUSIVE, Git
from everturn.git.shadow import read_refs
from everturn.git.untrusted import Damaged, everything_in, is_folder
from everturn.model import RepositoryOptions
from everturn.workdirs.cache import Cache, Tip
from everturn.workdirs.root import Root

_CONFIG = {"checkout.workers": "0", "core.untrackedCache": "false", "core.splitIndex": "false"}
_SPECIAL = set("*?[]!\\#")


@dataclass(frozen=True, slots=True)
class Trees:
    """Makes working trees, and has them show something else.

    Attributes:
        root: Where they are.
        git: Runs git.
    """

    root: Root
    git: Git

    def build(
        self, tree: Path, cache: Cache, tip: Tip, options: RepositoryOptions, stop: threading.Event | None = None
    ) -> None:
        """Make a working tree. It appears when it is whole.

        Args:
            tree: Where; there is nothing there.
            cache: What it borrows from.
            tip: What it is to show.
            options: How much of it.
            stop: Once it is set, git is killed within a moment.

        Raises:
            EverturnError: git failed. Nothing was made.
        """
        with self.root.unfinished() as folder:
            made = make_folder(folder, "tree")
            self._write_gitdir(make_folder(made, ".git"), cache, tip, options)
            self._check_out(made, cache.remote, tip, options, None, stop)
            self._keep_index(made / ".git", tree.name)
            made.rename(tree)

    def reuse(  # what is there, what it is to show, and who is waiting
        self,
        tree: Path,
        cache: Cache,
        tip: Tip,
        options: RepositoryOptions,
        lock: Lock,
        stop: threading.Event | None = None,
    ) -> None:
        """Have a working tree show something else, and nothing of what it showed. What was in it is gone.

        Files that stay the same are not written anew; those that git ignores stay, if the options say so. What is the
        same goes by the index as we left it, not by the agent's, which may say of any file that it has not changed.
        When this is interrupted, the tree is good for nothing.

        Args:
            tree: The working tree.
            cache: What it is to borrow from.
            tip: What it is to show.
            options: How much of it.
            lock: The workdir's lock.
            stop: Once it is set, git is killed within a moment.

        Raises:
            EverturnError: git failed.
        """
        old = tree / ".git"
        with self.root.unfinished() as folder:
            new = make_folder(folder, ".git")
            self._write_gitdir(new, cache, tip, options)
            with suppress(FileNotFoundError):
                shutil.copy2(self.root.index_of(tree.name), new / "index")  # git goes by its time, too
            if self._hides_files(tree, new, options, stop):
                remove(new / "index")
            self._check_out(tree, cache.remote, tip, options, lock, stop, git_dir=new)
            ignored = () if options.keep_ignored else ("-x",)
            self._run(["clean", "-ffd", "--quiet", *ignored], tree, lock, stop, git_dir=new)
            self._keep_index(new, tree.name)
            self.root.discard(old)  # not before: what may still be at work in the tree could write into the new one
            new.rename(old)

    def has_tracked(self, tree: Path, branch: str) -> bool:
        """Tell whether the remote had a branch when a working tree last heard of it."""
        with suppress(Damaged, OSError):
            git_dir = tree / ".git"
            return f"refs/remotes/origin/{branch}" in read_refs(git_dir, git_dir).named
        return False

    def heal(self, tree: Path) -> None:
        """Remove what git has left that was killed in the middle. Nobody may be at work in the tree."""
        git_dir = tree / ".git"
        if not is_folder(git_dir):
            return
        for entry in everything_in(git_dir):
            path = Path(entry.path)
            is_repository = os.path.lexists(path / "HEAD")  # of a submodule or a worktree with such a name
            if (entry.name.endswith(".lock") and not is_repository) or (
                entry.name.startswith("tmp_") and path.is_relative_to(git_dir / "objects")
            ):
                remove(path)

    def _write_gitdir(self, gitdir: Path, cache: Cache, tip: Tip, options: RepositoryOptions) -> None:
        refs = [ref for ref in tip.refs if ref[0] != "refs/remotes/origin/HEAD"]
        if tip.branch is not None and tip.commit is not None:
            refs.append((f"refs/heads/{tip.branch}", tip.commit))
        for name in ("objects/info", "objects/pack", "refs/heads", "refs/tags", "refs/remotes/origin", "info"):
            make_folder(gitdir, name)
        write_file(
            gitdir / "HEAD", f"ref: refs/heads/{tip.branch}\n" if tip.branch is not None else f"{tip.commit}\n"
        )
        write_file(gitdir / "packed-refs", packed_refs(refs))
        write_file(gitdir / "objects/info/alternates", f"{cache.objects}\n")
        write_file(gitdir / "config", workdir_config(cache.remote, tip.branch, lfs=options.lfs))
        if tip.default_branch is not None:
            head = f"ref: refs/remotes/origin/{tip.default_branch}\n"
            write_file(gitdir / "refs/remotes/origin/HEAD", head)
        if tip.shallow:
            write_file(gitdir / "shallow", tip.shallow)

    def _check_out(  # what, from where, and who is waiting
        self,
        tree: Path,
        remote: Remote,
        tip: Tip,
        options: RepositoryOptions,
        lock: Lock | None,
        stop: threading.Event | None,
        *,
        git_dir: Path | None = None,
    ) -> None:
        if tip.commit is None:
            return
        if options.lfs:
            self._need_lfs(tree)
        if options.sparse:
            cone = not any(_SPECIAL & set(pattern) for pattern in options.sparse)
            arguments = ["sparse-checkout", "set", "--cone" if cone else "--no-cone", "--stdin"]
            self._run(arguments, tree, lock, stop, text="\n".join([*options.sparse, ""]), git_dir=git_dir)
        self._run(["reset", "--hard", "--quiet"], tree, lock, stop, git_dir=git_dir)
        if options.submodules:
            # Who has written a repository elsewhere has no say in what is read from this machine's disk.
            config = {} if remote.is_local else {"protocol.file.allow": "never"}
            arguments = ["submodule", "--quiet", "update", "--init", "--recursive", "--force"]
            self._run(arguments, tree, lock, stop, config=config)

    def _keep_index(self, git_dir: Path, name: str) -> None:
        kept = self.root.index_of(name)
        remove(kept)
        with suppress(FileNotFoundError):  # there is none as long as there is no commit
            shutil.copy2(git_dir / "index", kept)

    def _need_lfs(self, tree: Path) -> None:
        try:
            self.git.run(["lfs", "version"], tree)
        except INCONCLUSIVE:
            raise
        except EverturnError:
            raise Invalid(
                "the repository's large files are wanted, and there is no git-lfs",
                hint="install git-lfs, or unset lfs",
            ) from None

    def _hides_files(
        self, tree: Path, git_dir: Path, options: RepositoryOptions, stop: threading.Event | None
    ) -> bool:
        """Tell whether the index tells git to leave files alone, or cannot be read."""
        try:
            lines = self._run(["ls-files", "-v", "-z"], tree, None, stop, git_dir=git_dir).split("\0")
        except EverturnError:
            return True
        return any(line[:1].islower() or (line.startswith("S") and not options.sparse) for line in lines)

    def _run(
        self,
        arguments: list[str],
        tree: Path,
        lock: Lock | None,
        stop: threading.Event | None,
        *,
        text: str | None = None,
        config: Mapping[str, str] | None = None,
        git_dir: Path | None = None,
    ) -> str:
        here = {"GIT_CEILING_DIRECTORIES": str(tree.parent)}
        if git_dir is not None:
            here |= {"GIT_DIR": str(git_dir), "GIT_WORK_TREE": str(tree)}
        given = {**_CONFIG, **(config or {})}
        return self.git.run(arguments, tree, stop, online=True, config=given, extra=here, text=text, lock=lock)
