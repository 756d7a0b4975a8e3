"""git's own folders, as we write them: nothing in them is left to chance, to a template, or to an agent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from everturn.git.deleting import remove

_LFS = (
    ("filter.lfs.clean", "git-lfs clean -- %f"),
    ("filter.lfs.smudge", "git-lfs smudge -- %f"),
    ("filter.lfs.process", "git-lfs filter-process"),
    ("filter.lfs.required", "true"),
)


@dataclass(frozen=True, slots=True)
class Remote:
    """A repository elsewhere.

    Attributes:
        url: Its URL or path.
        blobless: Whether it is asked for the contents of files only once somebody needs them.
    """

    url: str
    blobless: bool = False

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, by its path."""
        return self.url.startswith(("/", "file:"))

    def config(self, *fetch: str) -> list[tuple[str, str]]:
        """Return the configuration for it, under the name `origin`."""
        pairs = [("remote.origin.url", self.url), *(("remote.origin.fetch", refspec) for refspec in fetch)]
        if self.blobless:
            pairs += [("remote.origin.promisor", "true"), ("remote.origin.partialclonefilter", "blob:none")]
            pairs += [("extensions.partialClone", "origin")]
        return pairs


def cache_config(remote: Remote) -> str:
    """Return the configuration of a cache."""
    return as_config(
        [
            ("core.repositoryformatversion", "1" if remote.blobless else "0"),
            ("core.bare", "true"),
            ("core.logAllRefUpdates", "false"),
            ("gc.auto", "0"),
            ("transfer.unpackLimit", "1"),  # packs only: a loose object that is damaged is found by nobody
            *remote.config(),
        ]
    )


def workdir_config(remote: Remote, branch: str | None, *, lfs: bool) -> str:
    """Return the configuration that a workdir begins with; later it is its agent's.

    Args:
        remote: What it is pushed to, and fetched from.
        branch: The branch it is on.
        lfs: Whether large files are fetched.
    """
    pairs = [
        ("core.repositoryformatversion", "1" if remote.blobless else "0"),
        ("core.bare", "false"),
        ("core.logAllRefUpdates", "true"),
        ("core.alternateRefsCommand", ":"),  # git asks the cache for nothing, and heeds nothing that it says
        *remote.config("+refs/heads/*:refs/remotes/origin/*"),
    ]
    if branch is not None:
        pairs += [(f"branch.{branch}.remote", "origin"), (f"branch.{branch}.merge", f"refs/heads/{branch}")]
    return as_config([*pairs, *(_LFS if lfs else ())])


def as_config(pairs: Sequence[tuple[str, str]]) -> str:
    """Return settings as git's files of configuration have them."""
    lines = []
    for key, value in pairs:
        section, _, name = key.rpartition(".")
        first, _, rest = section.partition(".")
        lines.append(f"[{first} {_quoted(rest)}]" if rest else f"[{first}]")
        lines.append(f"\t{name} = {_quoted(value)}")
    return "\n".join([*lines, ""])


def _quoted(text: str) -> str:
    for char, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("\t", "\\t")):
        text = text.replace(char, escaped)
    return f'"{text}"'


def packed_refs(refs: Sequence[tuple[str, str]]) -> str:
    """Return refs as git's file of packed refs has them."""
    lines = [f"{value} {name}" for name, value in sorted(refs, key=_bytes)]
    return "\n".join(["# pack-refs with: sorted ", *lines, ""])


def _bytes(ref: tuple[str, str]) -> bytes:
    return ref[0].encode("utf-8", "surrogateescape")


def write_file(path: Path, text: str) -> None:
    """Have a file say this and nothing else: all of it or, if we are killed, what it said before.

    It is not written if it says so already, and never through a link.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        remove(path)
    wanted = text.encode("utf-8", "surrogateescape")
    if not path.exists() or path.read_bytes() != wanted:
        new = path.with_name(f"{path.name}.lock")  # as git does it: whoever finds one later knows that it is stale
        remove(new)
        with new.open("xb") as file:
            file.write(wanted)
        new.rename(path)


def make_folder(base: Path, name: str) -> Path:
    """Have a folder in another one, however deep, and all of it real folders: links and files in the way go."""
    path = base
    for piece in ("", *name.split("/")):
        path = path / piece
        if path.is_symlink() or (path.exists() and not path.is_dir()):
            remove(path)
        path.mkdir(parents=True, exist_ok=True)
    return path
