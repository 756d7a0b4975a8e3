"""A remote to take from, and a folder of workdirs on a machine."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

from everturn.clock import Clock, Ids, SystemClock
from everturn.git.runner import Git
from everturn.model import RepositoryOptions, WorkItem
from everturn.settings import inherited_environment
from everturn.telemetry import Metrics
from everturn.workdirs import Workdirs
from everturn.workdirs.rescuer import Rescuer
from everturn.workdirs.root import Root

# What a person's git sees: nothing of this machine's configuration.
PERSON = {
    **{name: value for name, value in inherited_environment().items() if not name.startswith("GIT_")},
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{
        f"GIT_{role}_{what}": value
        for role in ("AUTHOR", "COMMITTER")
        for what, value in (("NAME", "P"), ("EMAIL", "p@x"))
    },
}


def git(folder: Path, *arguments: str, text: str | None = None) -> str:
    """Run git as a person or an agent does, and return what it printed."""
    done = subprocess.run(
        ["git", *arguments], cwd=folder, env=PERSON, input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"git {arguments}: {done.stderr}"
    return done.stdout.strip()


class Origin:
    """A repository that others push to.

    Args:
        folder: Where; it must not exist.
        files: What is in it at first; nothing: it has no commit.
    """

    def __init__(self, folder: Path, files: dict[str, str] | None = None) -> None:
        self.path = folder
        self.url = str(folder)
        self._desk = folder.with_name(f"{folder.name}-desk")
        folder.mkdir(parents=True)
        git(folder, "init", "--quiet", "--bare", "--initial-branch=main")
        git(folder.parent, "init", "--quiet", "--initial-branch=main", str(self._desk))
        git(self._desk, "remote", "add", "origin", str(folder))
        if files:
            self.push(files)

    @classmethod
    def copied(cls, template: Origin, folder: Path) -> Origin:
        """Return a copy of a repository, in no time."""
        copy = object.__new__(cls)
        copy.path, copy.url = folder, str(folder)
        copy._desk = folder.with_name(f"{folder.name}-desk")
        shutil.copytree(template.path, copy.path, symlinks=True)
        shutil.copytree(template._desk, copy._desk, symlinks=True)
        config = copy._desk / ".git" / "config"
        config.write_text(config.read_text(encoding="utf-8").replace(template.url, copy.url), encoding="utf-8")
        return copy

    def push(self, files: dict[str, str], branch: str = "main", *, ref: str | None = None) -> str:
        """Add a commit to a branch, which begins at `main` if it is not there, and return the commit."""
        there = git(self._desk, "ls-remote", "origin", f"refs/heads/{branch}", "refs/heads/main")
        commits = {line.split("\t")[1]: line.split("\t")[0] for line in there.splitlines()}
        if commits:
            git(self._desk, "fetch", "--quiet", "--prune", "origin")
            start = commits.get(f"refs/heads/{branch}") or commits["refs/heads/main"]
            git(self._desk, "checkout", "--quiet", "--force", "--detach", start)
        for name, content in files.items():
            path = self._desk / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        git(self._desk, "add", "--force", "--all")
        git(self._desk, "commit", "--quiet", "--allow-empty", "-m", f"Change {', '.join(files)}")
        git(self._desk, "push", "--quiet", "--force", "origin", f"HEAD:{ref or f'refs/heads/{branch}'}")
        return git(self._desk, "rev-parse", "HEAD")

    def delete(self, branch: str) -> None:
        """Delete a branch."""
        git(self.path, "update-ref", "-d", f"refs/heads/{branch}")

    def has(self, ref: str) -> str | None:
        """Return what a ref is on; `None` if there is none."""
        said = git(self.path, "for-each-ref", "--format=%(refname) %(objectname)", ref)
        return dict(line.split() for line in said.splitlines()).get(ref)


class Yard:
    """Workdirs below one folder, as processes of one machine see them.

    Args:
        folder: Where.
        clock: Tells the time.
    """

    def __init__(self, folder: Path, clock: Clock | None = None) -> None:
        self.root = Root(folder, clock or SystemClock(), Ids())
        self.metrics = Metrics(CollectorRegistry())
        self.options: dict[str, RepositoryOptions] = {}
        self.git = Git(inherited_environment(), timeout_s=60)

    def workdirs(self, **given: Any) -> Workdirs:
        """Return what opens workdirs here."""
        how = given.pop("how", "quarantine")
        rescuer = Rescuer(self.root, self.git, how=how, metrics=self.metrics)
        return Workdirs(
            self.root,
            self.git,
            options=lambda repo: self.options.get(repo, RepositoryOptions()),
            rescuer=rescuer,
            metrics=self.metrics,
            **given,
        )

    def counted(self, name: str, **labels: str) -> float:
        """Return what a metric has come to."""
        return self.metrics.registry.get_sample_value(f"everturn_{name}", labels) or 0.0

    def quarantined(self) -> Sequence[Path]:
        """Return what is in quarantine."""
        return sorted(self.root.quarantine.iterdir())

    @property
    def cache(self) -> Path:
        """The one cache that there is."""
        (found,) = self.root.caches.glob("*/repo.git")
        return found


def work(origin: Origin, issue: int = 7, agent: str = "fixer") -> WorkItem:
    """Return a work item."""
    return WorkItem(agent, origin.url, issue)


def clean(path: Path) -> bool:
    """Tell whether git sees nothing that is not committed."""
    return not git(path, "status", "--porcelain")


def opened(workdirs: Workdirs, item: WorkItem, branch: str | None = None, *, keep: bool = True) -> Path:
    """Open a workdir and let go of it."""
    workdir = workdirs.open(item, branch, keep=keep)
    workdir.close()
    return workdir.path
