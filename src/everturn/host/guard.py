"""The guard: a program of its own that stands between a worker and the agent command it starts.

The SDK starts it in place of the agent command. It starts the command, with the same standard input, output and
error, and sees to it that nothing of what that starts outlives the run: not when the worker is killed, not when it is
paused for longer than its claim lasts, and not when the command ends by itself. Then it keeps the local transcript.

It is started for every run, so it imports little, and nothing of Everturn: `python -I -S guard.py CONFIG arguments…`.
What looks at processes and ends them is here as well, for the worker's side to import.
"""

from __future__ import annotations

import json
import os
import select
import signal
import stat
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any, NoReturn

IS_LINUX = sys.platform == "linux"
END_NOW = signal.SIGUSR1
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

STOP_GRACE_S = 2.0  # what the command is given after SIGTERM; the SDK kills the guard itself after 5 s
COMMAND_GRACE_S = 0.3  # what it is given when the worker has died; it needs a tenth of a second
LEFTOVER_GRACE_S = 0.5  # what the leftovers of a command that has ended are given after SIGTERM
END_TIMEOUT_S = 10.0
LOOK_S, LOOK_AT_PARENT_S, PAUSE_S = 1.0, 0.2, 0.005

NOT_STARTED, KILLED = 127, 128 + signal.SIGKILL
RESUME_PREFIX = "claude-resume-"  # the SDK's temporary folders for resumed sessions
COPY_BYTES = 1 << 20

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


# --- Processes of this host --------------------------------------------------------------------------------------


class Process:
    """A process as it was seen. With the time of its start, as the system writes it, its id names it for good; that
    is empty where the system does not tell."""

    __slots__ = ("group", "parent", "pid", "started")

    def __init__(self, pid: int, parent: int, group: int, started: str) -> None:
        self.pid, self.parent, self.group, self.started = pid, parent, group, started


def look_up(pid: int) -> Process | None:
    """Return a process that is alive, or `None`; one that is only waiting to be reaped is not. Linux only."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()  # the name before it may hold anything
    if fields[0] in (b"Z", b"X"):
        return None
    return Process(pid, int(fields[1]), int(fields[2]), fields[19].decode())


def processes(*, portable: bool = not IS_LINUX) -> dict[int, Process]:
    """Return all processes that are alive, by their ids. The portable way is `ps`; it does not tell their start."""
    if portable:
        return _processes_by_ps()
    found = (look_up(int(name)) for name in os.listdir("/proc") if name.isdigit())
    return {process.pid: process for process in found if process is not None}


def _processes_by_ps() -> dict[int, Process]:
    import subprocess  # noqa: PLC0415  # slow to import, and rarely needed

    command = ["ps", "-A", "-o", "pid=,ppid=,pgid=,stat="]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True) as ps:
        rows = [line.split() for line in ps.communicate()[0].splitlines()]
    return {
        int(pid): Process(int(pid), int(parent), int(group), "")
        for pid, parent, group, state in rows
        if int(pid) != ps.pid and not state.startswith("Z")
    }


def below(table: dict[int, Process], roots: Iterable[int]) -> dict[int, Process]:
    """Return what was started by some processes, and by those, and so on. The roots are not among them."""
    children: dict[int, list[Process]] = {}
    for process in table.values():
        children.setdefault(process.parent, []).append(process)
    found: dict[int, Process] = {}
    left = list(roots)
    while left:
        for child in children.get(left.pop(), ()):
            if child.pid not in found:
                found[child.pid] = child
                left.append(child.pid)
    return found


def environment_of(pid: int) -> list[bytes]:
    """Return the `name=value` pairs that a process was started with; nothing if they may not be seen. Linux only."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError:
        return []


def is_same(process: Process) -> bool:
    """Tell whether a process that was seen is still alive, and its id has not gone to another one."""
    if not process.started:
        return process.pid in _processes_by_ps()
    now = look_up(process.pid)
    return now is not None and now.started == process.started


def open_handle(pid: int) -> int | None:
    """Return a descriptor that stands for a process (a pidfd), or `None` if it is gone or the system has none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return None


def send(process: Process, number: int) -> None:
    """Send a signal to a process, and to no other that has its id meanwhile. If it is gone, or somebody else's,
    nothing happens; whoever waits for its end sees that."""
    handle = open_handle(process.pid)
    try:
        if process.started and not is_same(process):
            return
        if handle is None:
            os.kill(process.pid, number)
        else:
            signal.pidfd_send_signal(handle, number)
    except OSError:
        pass
    finally:
        if handle is not None:
            os.close(handle)


def end_all(
    find: Callable[[], dict[int, Process]], pause: Callable[[float], None], timeout_s: float
) -> dict[int, Process]:
    """Kill whatever there is to find, until there is nothing. Returns what is still there after so many seconds.

    All is stopped before anything is killed: nothing can start something new, or notice that something else has died.

    Args:
        find: What there is now, at each call.
        pause: Waits for so many seconds.
        timeout_s: How long to go on.
    """
    deadline_s = elapsed_s() + timeout_s
    while True:
        stopped: dict[int, Process] = {}
        while fresh := {pid: process for pid, process in find().items() if pid not in stopped}:
            for process in fresh.values():
                send(process, signal.SIGSTOP)
            stopped.update(fresh)
            if elapsed_s() > deadline_s:
                break
        if not stopped:
            return {}
        for process in stopped.values():
            send(process, signal.SIGKILL)
        if elapsed_s() > deadline_s:
            return stopped
        pause(PAUSE_S)


def elapsed_s() -> float:
    """Return what `SystemClock.elapsed` returns."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


# --- Files -------------------------------------------------------------------------------------------------------


def write_json(path: str, value: dict[str, Any]) -> None:
    """Put a value into a file that is replaced as a whole. Whoever reads it sees the old one or the new one."""
    draft = f"{path}.new"
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(value, file)
    os.replace(draft, path)


def lease_text(until_elapsed_s: float) -> bytes:
    """Return what a lease file holds: the deadline twice, in a fixed width, so that it can be written over in place,
    even on a disk that is full, and half of it is recognised."""
    return f"{until_elapsed_s:020.6f} {until_elapsed_s:020.6f}\n".encode()


def read_lease(path: str) -> float:
    """Return the deadline in a lease file, in seconds of `elapsed_s`. If there is none, it has long passed."""
    for _ in range(10):
        try:
            with open(path, "rb") as file:
                first, second = file.read(100).split()
            if first == second:
                return float(first)
        except FileNotFoundError:
            break
        except (OSError, ValueError):
            pass
        select.poll().poll(1)  # it is just being written
    return 0.0


def keep_transcript(config_dir: str, session_id: str, folder: str) -> None:
    """Keep what the agent command has written of a session, as hard links or copies, laid out as in its own folder of
    projects. An `OSError`, or a `RecursionError` where folders lie too deep, says that it is not whole."""
    projects = os.path.join(config_dir, "projects")
    for project in os.listdir(projects) if os.path.isdir(projects) else ():
        source, target = os.path.join(projects, project), os.path.join(folder, project)
        if not os.access(source, os.X_OK):
            continue  # another user's: our command cannot have written there
        _keep(f"{source}/{session_id}.jsonl", f"{target}/{session_id}.jsonl")
        for parent, _, names in os.walk(f"{source}/{session_id}", onerror=_refuse_all_but_absence):
            inside = os.path.join(target, os.path.relpath(parent, source))
            for name in names:
                _keep(os.path.join(parent, name), os.path.join(inside, name))


def _refuse_all_but_absence(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _keep(source: str, target: str) -> None:
    try:
        if not stat.S_ISREG(os.lstat(source).st_mode):
            return
    except (FileNotFoundError, NotADirectoryError):
        return
    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
    if os.path.lexists(target):
        if os.path.samefile(source, target):
            return
        os.unlink(target)
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        _copy(source, target)


def _copy(source: str, target: str) -> None:
    draft = f"{target}.new"
    with open(source, "rb") as old, open(draft, "wb") as new:
        while block := old.read(COPY_BYTES):
            new.write(block)
    os.replace(draft, target)


def remove_resume_folder(config_dir: str, temporary: str) -> None:
    """Remove the temporary folder that the SDK made for a resumed session, if it is one: it holds credentials."""
    import shutil  # noqa: PLC0415  # slow to import, and only needed at the end

    parent, name = os.path.split(os.path.realpath(config_dir))
    if parent == os.path.realpath(temporary) and name.startswith(RESUME_PREFIX):
        shutil.rmtree(config_dir, ignore_errors=True)


# --- The guard itself --------------------------------------------------------------------------------------------


class Guard:
    """Starts the agent command and ends all of it.

    Args:
        config: What `RunFolder.launcher` wrote.
        arguments: The command's arguments.
    """

    def __init__(self, config: dict[str, Any], arguments: list[str]) -> None:
        self._config = config
        self._command = [config["cli"], *arguments]
        self._portable: bool = config["portable"]
        self._worker_pid: int = config["worker_pid"]
        self._marker = os.fsencode(config["marker"])
        self._config_dir = os.path.abspath(os.environ.get("CLAUDE_CONFIG_DIR") or os.path.expanduser("~/.claude"))
        try:
            self._cwd = os.getcwd()
        except OSError:  # it was removed
            self._cwd = ""
        self._cli = 0
        self._exit: int | None = None
        self._worker: int | None = None
        self._poll = select.poll()
        self._stops = 0
        self._end_now = False

    def run(self) -> int:
        """Start the command, wait, end everything. Returns the exit code of the command; 128 + n for a signal n."""
        self._stand_apart()
        reason = "error"
        try:
            reason = self._reason_to_end() or self._start() or self._wait()
            if reason == "exit":
                self._ask_leftovers()
            elif reason == "worker":
                self._ask_command()
        finally:
            self._tidy_up(reason, end_all(self._everything_below, self._pause, END_TIMEOUT_S))
        return KILLED if self._exit is None else self._exit

    def _stand_apart(self) -> None:
        """Leave the terminal, whose Ctrl-C is for the worker alone; become the parent of all orphans below."""
        self._watch_signals()
        try:
            os.setsid()
        except OSError:
            pass  # we lead a group already
        if self._portable:
            return
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        self._worker = open_handle(self._worker_pid)
        if self._worker is not None:
            self._poll.register(self._worker, select.POLLIN)

    def _watch_signals(self) -> None:
        wakeups, write = os.pipe()
        os.set_blocking(write, False)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        self._poll.register(wakeups, select.POLLIN)
        for number in (signal.SIGCHLD, END_NOW, *STOP_SIGNALS):
            signal.signal(number, lambda *_: None)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())  # a worker may have blocked signals, to wait for them

    def _start(self) -> str | None:
        """Start the command. Returns why everything has to end at once, or `None`."""
        self._note()
        report, tell = os.pipe()
        guard = os.getpid()
        try:
            self._cli = os.fork() or self._become_the_command(guard, tell)
        except OSError as error:  # a container may limit how many processes it has
            os.write(tell, str(error.errno).encode())
        os.close(tell)
        failure = os.read(report, 16)
        os.close(report)
        if failure:
            self._exit = NOT_STARTED
            sys.stderr.write(f"the agent command {self._command[0]} cannot be started: {os.strerror(int(failure))}\n")
            return "not_started"
        nothing = os.open(os.devnull, os.O_RDWR)
        for ours in (0, 1):  # so that each side sees at once when the other lets go
            os.dup2(nothing, ours)
        os.close(nothing)
        self._note()
        return None

    def _become_the_command(self, guard: int, tell: int) -> NoReturn:
        try:
            if self._portable:
                os.setpgid(0, 0)
            else:
                _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == guard:
                for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores
                    signal.signal(number, signal.SIG_DFL)
                os.execv(self._command[0], self._command)  # noqa: S606  # no shell is the point
        except OSError as error:
            os.write(tell, str(error.errno).encode())
        finally:
            os._exit(NOT_STARTED)

    def _wait(self) -> str:
        """Wait for a reason to end everything, and return it."""
        deadline_s = None
        while (reason := self._reason_to_end()) is None:
            if self._stops and deadline_s is None:
                deadline_s = elapsed_s() + STOP_GRACE_S
                os.kill(self._cli, signal.SIGTERM)
            if deadline_s is not None and elapsed_s() > deadline_s:
                return "signal"
            self._pause(LOOK_S if self._worker is not None and deadline_s is None else LOOK_AT_PARENT_S)
        return reason

    def _reason_to_end(self) -> str | None:
        if self._exit is not None:
            return "exit"
        if not self._worker_lives():
            return "worker"
        if elapsed_s() > read_lease(self._config["lease"]):
            return "lease"
        return "signal" if self._end_now or self._stops > 1 else None

    def _worker_lives(self) -> bool:
        if self._portable or self._worker is None:
            return os.getppid() == self._worker_pid
        return is_same(Process(self._worker_pid, 0, 0, self._config["worker_started"]))

    def _pause(self, seconds: float) -> None:
        """Wait for a signal, a child's end, or the worker's; then reap."""
        for descriptor, _ in self._poll.poll(seconds * 1000):
            if descriptor == self._worker:
                self._poll.unregister(descriptor)  # it has ended, and would wake us for ever
                continue
            for number in os.read(descriptor, 1000):
                self._stops += number in STOP_SIGNALS
                self._end_now = self._end_now or number == END_NOW
        self._reap()

    def _reap(self) -> None:
        try:
            while (ended := os.waitpid(-1, os.WNOHANG)) != (0, 0):
                if ended[0] == self._cli and self._exit is None:
                    code = os.waitstatus_to_exitcode(ended[1])
                    self._exit = code if code >= 0 else 128 - code
        except ChildProcessError:
            pass

    def _everything_below(self) -> dict[int, Process]:
        table = processes(portable=self._portable)
        ours = os.getpid()
        found = below(table, [ours])
        for pid, process in table.items():
            if pid in found or pid == ours:
                continue
            if (self._cli and process.group == self._cli) if self._portable else self._marker in environment_of(pid):
                found[pid] = process
        return found

    def _ask_command(self) -> None:
        """Let the command write down its last entries, and remove its own temporary files."""
        if self._cli:
            os.kill(self._cli, signal.SIGTERM)
        self._await_command(COMMAND_GRACE_S)

    def _await_command(self, seconds: float) -> None:
        deadline_s = elapsed_s() + seconds
        while self._cli and self._exit is None and elapsed_s() < deadline_s:
            self._pause(PAUSE_S)

    def _ask_leftovers(self) -> None:
        """Let what the command left behind end by itself: a database, say, that a tool has started."""
        left = self._everything_below()
        for process in left.values():
            send(process, signal.SIGTERM)
        deadline_s = elapsed_s() + LEFTOVER_GRACE_S
        while left and elapsed_s() < deadline_s:
            self._pause(PAUSE_S)
            left = self._everything_below()

    def _tidy_up(self, reason: str, left: dict[int, Process]) -> None:
        if self._cli not in left:  # it is dead, and about to be ours to reap
            self._await_command(LEFTOVER_GRACE_S)
        try:
            keep_transcript(self._config_dir, self._config["session_id"], self._config["transcript"])
            kept = True
        except (OSError, RecursionError):
            kept = False  # the worker's side tries again
        if kept and not self._worker_lives():
            remove_resume_folder(self._config_dir, self._config["temporary"])
        self._note(ended=reason, code=self._exit, kept=kept, left=sorted(left))

    def _note(self, **more: Any) -> None:
        ours = None if self._portable else look_up(os.getpid())
        facts = {
            "pid": os.getpid(),
            "started": "" if ours is None else ours.started,
            "cli_pid": self._cli or None,
            "config_dir": self._config_dir,
            "cwd": self._cwd,
            "session_id": self._config["session_id"],
            "temporary": self._config["temporary"],
        }
        try:
            write_json(self._config["notes"], {**facts, **more})
        except OSError:
            pass  # the folder is gone or the disk is full; ending processes matters more


def _prctl(option: int, value: int) -> None:
    try:
        import ctypes  # noqa: PLC0415  # for Linux alone

        ctypes.CDLL(None).prctl(option, *map(ctypes.c_ulong, (value, 0, 0, 0)))
    except (ImportError, OSError, AttributeError):
        pass  # an unusual system: orphans are found by their marker then


def main(arguments: list[str]) -> int:
    """Run the guard, with its configuration's file and what the agent command is given."""
    with open(arguments[0], encoding="utf-8") as file:
        config = json.load(file)
    return Guard(config, arguments[1:]).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
