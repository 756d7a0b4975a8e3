"""Durable runs of work items."""

from everturn.runner.dispatch import Stores
from everturn.runner.handle import Run
from everturn.runner.parts import Parts
from everturn.runner.request import Prompt, Request
from everturn.runner.runner import Runner

__all__ = ["Parts", "Prompt", "Request", "Run", "Runner", "Stores"]
