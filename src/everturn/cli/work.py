"""The work item that a command is given."""

from __future__ import annotations

from everturn.errors import Invalid
from everturn.model import WorkItem


def work_item(agent: str | None, repo: str | None, issue: str | None, task: str | None) -> WorkItem:
    """Return the work item that the options name.

    Raises:
        Invalid: Something is missing, there is too much, or a name holds a character that it must not.
    """
    if task is None:
        return WorkItem(agent, repo, issue)
    if issue is not None:
        raise Invalid("both --task and --issue are given", hint="give one of the two")
    return WorkItem.task(task, agent=agent, repo=repo)
