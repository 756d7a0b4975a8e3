"""A source of tokens that end, as a forge's application has."""

from __future__ import annotations

from everturn.clock import ManualClock
from everturn.errors import Unavailable
from everturn.git.credentials import Credential


class Minting:
    """A source whose tokens end after an hour."""

    def __init__(self, clock: ManualClock) -> None:
        self.clock = clock
        self.count = 0
        self.broken = False

    def __call__(self, url: str) -> Credential:
        if self.broken:
            raise Unavailable("no more tokens", hint="wait")
        self.count += 1
        return Credential("bot", f"token {self.count}", self.clock.now() + 3600)
