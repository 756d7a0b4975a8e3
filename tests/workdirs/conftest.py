"""What tests of workdirs begin with: a remote and a folder of workdirs, or a workdir that an agent has left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from workdirs.left_behind import LeftBehind, copied, prepare
from workdirs.yard import Origin, Yard


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Origin:
    files = {"a.txt": "a\n", "lib/b.txt": "b\n", ".gitignore": "*.o\n/build/\n"}
    return Origin(tmp_path_factory.mktemp("remotes") / "shop", files)


@pytest.fixture
def origin(shop: Origin, tmp_path: Path) -> Origin:
    return Origin.copied(shop, tmp_path / "remotes" / "shop")


@pytest.fixture
def yard(tmp_path: Path) -> Yard:
    return Yard(tmp_path / "workdirs")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepare(tmp_path_factory.mktemp("left") / "behind").folder


@pytest.fixture
def left(template: Path, tmp_path: Path) -> LeftBehind:
    return copied(template, tmp_path / "behind")


@pytest.fixture
def with_large_file(left: LeftBehind, monkeypatch: pytest.MonkeyPatch) -> LeftBehind:
    """The workdir, with a file that git-lfs has checked out. Ours knows one file only."""
    programs = left.folder / "programs"
    programs.mkdir()
    (programs / "git-lfs").write_text('#!/bin/sh\n[ "$1" = clean ] && sed "s/^large$/pointer/"\n')
    (programs / "git-lfs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    left.write(".gitattributes", "*.bin filter=lfs\n")
    left.write("big.bin", "pointer\n")
    left.agent("add", ".")
    left.agent("commit", "--quiet", "-m", "Large")
    left.agent("push", "--quiet", "origin", "HEAD:main")
    left.fetch()
    left.write("big.bin", "large\n")
    left.agent("-c", "filter.lfs.clean=git-lfs clean -- %f", "add", "big.bin")
    return left
