"""Try the tutorials without a key: a shell in which the real agent command talks to a script.

The script knows what docs/start.md and docs/tutorials/ ask of it. The shell has a home of its own, which goes when
it ends.

    python without_a_key.py                                       # docs/start.md
    python without_a_key.py python -m everturn.testing -- bash    # the same, beside S3 and DynamoDB on loopback
"""

import os
import subprocess
import sys
import tempfile

from everturn.testing import ModelRequest, Reply, ScriptedModel, Text, ToolUse, cli_environment


def answer(request: ModelRequest) -> Reply:
    told = request.last_user_text()
    if "Which word" in told:
        return Reply(Text("The word was heron." if "heron" in "".join(request.texts()) else "I know of no word."))
    if "Remember" in told:
        return Reply(Text("I shall remember: heron."))
    if request.tool_results():
        return Reply(Text("Done."))
    if "Count" in told:
        return Reply(Text("One, two,"), ToolUse("Bash", {"command": "for i in $(seq 60); do echo $i; sleep 1; done"}))
    if "Issue" in told:
        return Reply(Text("Let me look."), ToolUse("Bash", {"command": "ls > NOTES.md"}))
    return Reply(Text("I am a script, and know only what the tutorials ask."))


def main(command: list[str]) -> int:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home, ScriptedModel(answer).serve() as url:
        environment = cli_environment(url, home, path=os.environ["PATH"])
        environment["TERM"] = os.environ.get("TERM", "dumb")
        return subprocess.call(command, env=environment)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["bash"]))
