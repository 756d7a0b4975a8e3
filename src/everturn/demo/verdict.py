"""What came of a performance, computed from what really happened."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from everturn.demo import story
from everturn.testing import ModelRequest, ScriptedModel


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it.

    Attributes:
        entries_acknowledged: How many transcript entries the two workers were told are durable.
        entries_recovered: How many of them the store returns, equal and in order.
        entries_lost: How many it does not.
        sent_not_stored: How many things that were said and done, and that the model was sent at the end, the store
            does not return. Live, nobody but the model knows what it was sent, and this is 0.
        resumed: Whether worker B went on with worker A's conversation: with the scripted model, whether the model was
            sent it again; live, whether B's entries continue A's in the transcript.
        session_id: The conversation.
        seconds: How long it took.
        finished: Whether the bug is mended and committed in worker B's checkout.
        store: Where the transcript lies.
        killed_processes: How many processes died with worker A.
        folder: The demo's folder, if it was kept.
    """

    entries_acknowledged: int
    entries_recovered: int
    entries_lost: int
    sent_not_stored: int
    resumed: bool
    session_id: str
    seconds: float
    finished: bool
    store: str
    killed_processes: int
    folder: str | None = None

    @property
    def ok(self) -> bool:
        """Whether everything is as promised."""
        nothing_lost = self.entries_acknowledged > 0 and self.entries_lost == 0 and self.sent_not_stored == 0
        return nothing_lost and self.resumed and self.finished


def was_sent_again(model: ScriptedModel) -> bool:
    """Tell whether, after the kill, the model was sent everything that had been said and done before it."""
    requests = model.requests
    if len(requests) <= story.FATAL_REQUEST:
        return False
    before = _said_and_done(requests[story.FATAL_REQUEST - 1].messages)
    after = _said_and_done(requests[story.FATAL_REQUEST].messages)
    return bool(requests[story.FATAL_REQUEST - 1].tool_results()) and before < after and story.RESUME_PROMPT in after


def sent_not_stored(model: ScriptedModel, stored: list[Any]) -> int:
    """Count what the model was sent at last, of what was said and done, that the stored transcript does not hold."""
    messages = [entry["message"] for entry in stored if entry.get("type") in ("user", "assistant")]
    return len(_said_and_done(model.requests[-1].messages) - _said_and_done(messages))


def continues(first: list[Any], second: list[Any]) -> bool:
    """Tell whether the second worker's entries hang on the first one's in the transcript."""
    ours = {entry["uuid"] for entry in first if "uuid" in entry}
    return any(entry.get("parentUuid") in ours for entry in second if entry.get("uuid") not in ours)


def _said_and_done(messages: list[dict[str, Any]]) -> set[Any]:
    """Return the prompts, what the model said, and the tool calls with their results; not what the agent adds."""
    conversation = ModelRequest(0, {"messages": messages}, True, False, 0.0)
    answers = [message for message in messages if message["role"] == "assistant"]
    said = {*ModelRequest(0, {"messages": answers}, True, False, 0.0).texts()}
    prompts = {text for text in conversation.texts() if text in (story.PROMPT, story.RESUME_PROMPT)}
    calls = {(call[0], call[1]) for call in conversation.tool_uses()}
    return said | prompts | calls | set(conversation.tool_results())
