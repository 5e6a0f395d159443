"""Every way a run can end, and the exit code each one has.

::

    DistillError
    |- ConfigError          2  a setting, a flag or a file named on the command line is wrong
    |- EnvironmentProblem   3  this machine lacks something
    |  `- MissingDependency 3  ... an optional package; the message holds the exact pip command
    |- DataError            4  prompts, data set or task file is unusable
    |- Refused              5  security or licence; nothing was sent, loaded or written
    |- IntegrityError       6  a file is not what its hash says
    |- BudgetReached       10  the cap would be passed; resumable
    |- TeacherRefused      11  authentication, quota or model name; resumable once fixed
    |- TeacherUnavailable  12  the teacher does not answer; resumable
    |- TooManyRejected     13  too few usable answers
    |- Diverged            14  NaN or exploding loss
    |- OutOfMemory         15
    |- RunLocked           16  another process works in this run folder
    |- GateFailed          20  the student is worse than the margin allows
    |- GateInconclusive    21  not enough items to tell
    |- DiskProblem         74  full, read-only or failing disk; resumable
    |- Preempted           75  stopped by SIGTERM after a save; resumable
    `- Interrupted        130  stopped by Ctrl-C; resumable

Anything else is our bug: exit 70. A message is one line and holds up to four parts: what happened, where,
what is safe on disk, and the command that continues.
"""

from __future__ import annotations

_secrets: set[str] = set()


def keep_secret(value: str) -> None:
    """From now on, no message and no report of a bug shows this value."""
    if value:
        _secrets.add(value)


def struck(text: str) -> str:
    """``text`` without the secrets that this process has read."""
    for value in _secrets:
        text = text.replace(value, "***")
    return text


class DistillError(Exception):
    """A known ending. ``str(error)`` is the one line a person reads."""

    exit_code = 70

    def __init__(self, what: str, *, where: str | None = None, safe: str | None = None, next: str | None = None):
        self.what, self.where, self.safe, self.next = what, where, safe, next
        super().__init__(what)

    def __str__(self) -> str:
        line = f"{self.where}: {self.what}" if self.where else self.what
        if self.safe:
            line += f" | safe on disk: {self.safe}"
        if self.next:
            line += f" | next: {self.next}"
        return struck(" ".join(line.split()))


class ConfigError(DistillError):
    """A setting is wrong. ``problems`` holds one line for each; all are found in one go."""

    exit_code = 2

    def __init__(self, what: str, *, problems: tuple[str, ...] = (), where: str | None = None, next: str | None = None):
        super().__init__(what, where=where, next=next)
        self.problems = problems

    def __str__(self) -> str:
        return "\n".join(self.problems) if self.problems else super().__str__()


class EnvironmentProblem(DistillError):
    """This machine lacks something the run needs."""

    exit_code = 3


class MissingDependency(EnvironmentProblem):
    """An optional package is not installed."""

    def __init__(self, package: str, needed_by: str, extra: str):
        super().__init__(f"{package} is needed by {needed_by}", next=f"pip install 'alambic[{extra}]'")


class DataError(DistillError):
    """Prompts, data set or task file cannot be used."""

    exit_code = 4


class Refused(DistillError):
    """Security or licence: nothing was sent, loaded or written."""

    exit_code = 5


class IntegrityError(DistillError):
    """A file is not what its hash says."""

    exit_code = 6


class BudgetReached(DistillError):
    """The next call's worst case does not fit under the cap."""

    exit_code = 10


class TeacherRefused(DistillError):
    """The teacher will not serve us: key, quota or model name."""

    exit_code = 11


class TeacherUnavailable(DistillError):
    """The teacher does not answer within the attempt budget."""

    exit_code = 12


class TooManyRejected(DistillError):
    """Too few usable answers came back."""

    exit_code = 13


class Diverged(DistillError):
    """The loss became NaN or exploded."""

    exit_code = 14


class OutOfMemory(DistillError):
    """The step does not fit, even at a micro-batch of one."""

    exit_code = 15


class RunLocked(DistillError):
    """Another process works in this run folder."""

    exit_code = 16


class GateFailed(DistillError):
    """The student is worse than the margin allows."""

    exit_code = 20


class GateInconclusive(DistillError):
    """Not enough items to tell."""

    exit_code = 21


class DiskProblem(DistillError):
    """Full, read-only or failing disk."""

    exit_code = 74


class Preempted(DistillError):
    """Stopped by SIGTERM after a save."""

    exit_code = 75


class Interrupted(DistillError):
    """Stopped by Ctrl-C."""

    exit_code = 130
