"""Where agents work."""

from everturn.workdirs.checkouts import Workdirs

__all__ = ["Workdirs"]
