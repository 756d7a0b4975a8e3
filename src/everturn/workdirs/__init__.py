"""Where agents work."""

from everturn.workdirs.names import located
from everturn.workdirs.workdirs import Workdir, Workdirs

__all__ = ["Workdir", "Workdirs", "located"]
