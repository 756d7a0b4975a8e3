"""Where agents work."""

from everturn.workdirs.checkouts import Workdirs, located

__all__ = ["Workdirs", "located"]
