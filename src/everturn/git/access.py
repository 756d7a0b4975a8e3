"""What git gets from this worker: credentials for remotes, and names for commits. Ours gets it, and each agent's."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from everturn.clock import Clock, Ids
from everturn.git.credential_server import CredentialServer, address_of
from everturn.git.credentials import Credentials
from everturn.git.identity import Identity, default_identity, environment
from everturn.git.runner import with_config


class GitAccess:
    """Gives git what it needs. May be used from any thread.

    Args:
        credentials: Who may have what.
        identity: Returns who an agent's commits are by, and who commits them, as `Name <email>`, as far as that is
            set.
        variables: The variables of this process.
        folder: Where the socket for our own git is made.
        ca_file: The certificates that count for all remotes, in place of the machine's.
        clock: Tells the time.
        ids: Makes names that nobody else uses.
    """

    def __init__(
        self,
        credentials: Credentials,
        identity: Callable[[str | None], tuple[str | None, str | None]],
        variables: Mapping[str, str],
        folder: Path,
        *,
        ca_file: Path | None,
        clock: Clock,
        ids: Ids,
    ) -> None:
        self._credentials = credentials
        self._identity = identity
        self._variables = variables
        self._folder = folder
        self._ca_file = ca_file
        self._clock = clock
        self._ids = ids
        self._own = self._server(folder)
        self._tidied = threading.Lock()

    def online(self, base: Mapping[str, str]) -> dict[str, str]:
        """Return an environment in which our own git gets credentials.

        Args:
            base: The environment without them.
        """
        if self._credentials and self._tidied.acquire(blocking=False):
            _remove_dead_sockets(self._folder)
        return self._own.environment(self._trusting(base))

    def close(self) -> None:
        """Give our own git no more credentials."""
        self._own.close()

    def server(self, folder: Path) -> CredentialServer:
        """Return what gives credentials to an agent, and to nobody who has not its environment.

        Args:
            folder: Where its socket is made; only this user can enter it.
        """
        return self._server(folder)

    def for_agent(self, agent: str | None, server: CredentialServer, given: Mapping[str, str]) -> dict[str, str]:
        """Return the variables for an agent that works in a workdir.

        Args:
            agent: Its name.
            server: What it gets credentials from.
            given: What its caller wants in its environment; that goes before ours.

        Raises:
            Invalid: The identity that is set for it is none.
        """
        config = {name: value for name, value in self._variables.items() if name.startswith("GIT_CONFIG_")}
        author, committer = self.identity(agent)
        return server.environment(self._trusting({**config, **environment(author, committer), **given}))

    def identity(self, agent: str | None) -> tuple[Identity, Identity]:
        """Return who an agent's commits are by, and who commits them.

        Raises:
            Invalid: What is set is no identity.
        """
        author_text, committer_text = self._identity(agent)
        author = default_identity(agent) if author_text is None else Identity.parse(author_text)
        return author, author if committer_text is None else Identity.parse(committer_text)

    def _trusting(self, base: Mapping[str, str]) -> dict[str, str]:
        return with_config({} if self._ca_file is None else {"http.sslCAInfo": str(self._ca_file.absolute())}, base)

    def _server(self, folder: Path) -> CredentialServer:
        return CredentialServer(
            self._credentials,
            folder,
            ca_file=self._ca_file,
            environment=self._variables,
            clock=self._clock,
            ids=self._ids,
        )


def _remove_dead_sockets(folder: Path) -> None:
    """Remove the sockets of processes that were killed: nobody answers there."""
    with suppress(OSError):
        for path in folder.iterdir():
            if path.is_socket() and not _answers(path):
                path.unlink(missing_ok=True)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.setblocking(False)  # a worker that stands still, with a full queue, is there as well
        try:
            with address_of(path) as address:
                client.connect(address)
        except ConnectionRefusedError:
            return False
        except OSError:  # whatever it is, it is not for us to say that nobody is there
            return True
    return True
