"""What a run is asked to do."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from claude_agent_sdk import ClaudeAgentOptions

from everturn.agent import refuse_options
from everturn.errors import Invalid
from everturn.model import SessionRecord, WorkItem
from everturn.runner.dispatch import in_thread_or_leave
from everturn.workdirs.names import Target, check_repository

Prompt = str | Path | Callable[[SessionRecord | None], str | Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Request:
    """What a run is asked to do.

    Attributes:
        work: The work item.
        prompt: What to say to an agent that has not worked on it yet: a text, a file, or a function that is given
            what the registry knew of the work item before this run, or `None`, and returns the text.
        resume_prompt: What to say to one that has; the prompt again if it is `None`.
        options: What the caller wants of the agent.
        branch: What to work on in the work item's repository; see `Workdirs.open`.
    """

    work: WorkItem
    prompt: Prompt
    resume_prompt: Prompt | None
    options: ClaudeAgentOptions
    branch: str | None = None

    def check(self) -> None:
        """Refuse what cannot be run, before anything is touched.

        Raises:
            Invalid: A prompt is empty, cannot be read or is none, an option is not the caller's to set, or the
                directory does not exist.
        """
        _check("prompt", self.prompt)
        if self.resume_prompt is not None:
            _check("resume prompt", self.resume_prompt)
        refuse_options(self.options)
        Target.parse(self.branch)
        if self.branch is not None and not self.work.repo:
            raise Invalid("there is a branch, and no repository", hint="name the repository, or leave out the branch")
        if self.work.repo:
            check_repository(self.work.repo)
        if self.options.cwd is not None and not _is_directory(self.options.cwd):
            raise Invalid(f"there is no directory {self.options.cwd}", hint="make it, or name another one")
        if self.options.cwd is not None and self.work.repo:
            raise Invalid(
                "a work item with a repository brings its own directory",
                hint="leave out the option cwd, or the repository",
            )

    async def text(self, *, resumed: bool, record: SessionRecord | None) -> str:
        """Return what to say.

        Args:
            resumed: Whether the conversation has begun before.
            record: What the registry knew of the work item before this run.

        Raises:
            Invalid: It is empty or cannot be read.
        """
        delta = resumed and self.resume_prompt is not None
        name = "resume prompt" if delta else "prompt"
        prompt = self.resume_prompt if delta else self.prompt
        if isinstance(prompt, str):
            return prompt
        if isinstance(prompt, Path):
            return _checked(name, await in_thread_or_leave(partial(_read, name, prompt)))
        assert prompt is not None
        (said,) = await in_thread_or_leave(
            lambda: (prompt(record),)
        )  # wrapped: trio takes no awaitable out of a thread
        return _checked(name, await said if inspect.isawaitable(said) else said)


def _check(name: str, prompt: object) -> None:
    if isinstance(prompt, str | Path):
        _checked(name, prompt if isinstance(prompt, str) else _read(name, prompt))
    elif not callable(prompt):
        raise Invalid(f"the {name} is {type(prompt).__name__}", hint="give a text, a path, or a function")


def _checked(name: str, text: object) -> str:
    if not isinstance(text, str):
        raise Invalid(f"the {name} is {type(text).__name__}, not text", hint="have the function return a str")
    if not text.strip():
        raise Invalid(f"the {name} is empty", hint="say what the agent is to do")
    return text


def _read(name: str, file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"the {name} cannot be read from {file}: {error}", hint="name a text file in UTF-8") from None


def _is_directory(path: str | Path) -> bool:
    try:
        return Path(path).is_dir()
    except (OSError, ValueError):  # too long for a path, say
        return False
