"""What goes wrong with SQLite files, told apart by what can be done about it."""

from __future__ import annotations

import errno
import os

import pytest

from everturn.databases import is_full, is_refusal


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG])
def test_a_place_that_may_not_be_used_is_a_refusal(number: int) -> None:
    assert is_refusal(OSError(number, os.strerror(number)))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EIO, errno.ENOSPC])
def test_what_may_go_away_by_itself_is_no_refusal(number: int) -> None:
    error = OSError(number, os.strerror(number))
    assert not is_refusal(error)
    assert is_full(error) == (number == errno.ENOSPC)
