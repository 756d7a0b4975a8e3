"""Durable runs of work items."""

from everturn.runner.dispatch import Stores
from everturn.runner.handle import Run
from everturn.runner.parts import Parts
from everturn.runner.request import Prompt, Request
from everturn.runner.runner import Runner
from everturn.runner.sweeping import Sweeper

__all__ = ["Parts", "Prompt", "Request", "Run", "Runner", "Stores", "Sweeper"]
