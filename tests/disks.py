"""Small disks and disks that cannot be written: real ones. And programs that cannot write everywhere."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CAP_SYS_ADMIN = 21


def may_mount() -> bool:
    """Tell whether the kernel lets us mount: root has that right, unless a container took it away."""
    try:
        status = Path("/proc/self/status").read_text(encoding="ascii")
    except FileNotFoundError:
        return False
    powers = int(status.partition("CapEff:")[2].split()[0], 16)
    return bool(powers >> CAP_SYS_ADMIN & 1)


@contextmanager
def mounted(folder: Path, options: str) -> Iterator[None]:
    """Mount a file system in memory on a folder. Whoever has the right to mount has to be able to; for others, the
    test is left out."""
    if not may_mount():
        pytest.skip("mounting takes the right of an administrator (CAP_SYS_ADMIN)")
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def fill(folder: Path, left_bytes: int) -> Path:
    """Fill a disk up to the last few bytes."""
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\0" * 4096)
        except OSError:
            pass
        file.truncate(max(0, file.tell() - left_bytes))
    return filler


def obeying_permissions() -> list[str]:
    """Return what makes a program of root heed the permissions of files, as those of others do."""
    if os.geteuid() != 0:
        return []
    powers = "-dac_override,-dac_read_search"
    return ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}"]
