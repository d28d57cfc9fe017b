"""The tree of errors that tuner raises on purpose.

    TunerError                   exit code
    ├── UserError                2   what the person gave cannot be used as it is
    │   ├── StudyFileError           faults of a study file, all of them at once
    │   ├── UnknownStudyError        no study (or trial) of that name
    │   │   └── NoDatabaseError          no study at all: there is no database here
    │   ├── StudyConflictError       the stored study and the given one differ
    │   └── ObjectiveError           the objective is missing or does not fit
    ├── DataError                2   images or labels cannot be used as they are
    ├── MachineError             3   this machine cannot do what is asked
    │   └── DatabaseError        3   the database cannot be used
    │       ├── DatabaseUnreachableError
    │       └── DatabaseNewerError   written by a newer tuner
    └── StudyFailedError         1   the study ended, but with failures

Any other exception is a bug of ours and has exit code 70 (EX_SOFTWARE of
sysexits.h): a worker that exits with it is replaced, as after a crash.

A message names the thing, its state, and what to do next. Only `tuner.cli`
turns these into exit codes and text on a terminal. A lost lease is not an
error but an answer (`tuner.store.ledger.ledger`), so it is not in this tree.
"""

from collections.abc import Sequence
from dataclasses import dataclass

EXIT_DONE = 0
EXIT_FAILURES = 1
EXIT_USER = 2
EXIT_MACHINE = 3
EXIT_UNEXPECTED = 70
EXIT_SIGINT = 130
EXIT_SIGPIPE = 141
EXIT_SIGTERM = 143


class TunerError(Exception):
    """Any error that tuner reports on purpose; its message is for people."""

    exit_code = EXIT_MACHINE


class UserError(TunerError):
    """The user's input cannot be used as it is; the message says how to fix it."""

    exit_code = EXIT_USER


@dataclass(frozen=True)
class Fault:
    """One fault in a study file: where, what was expected, the nearest valid name."""

    key: str
    message: str

    def __str__(self) -> str:
        """Return the fault as one line."""
        return f"{self.key}: {self.message}" if self.key else self.message


class StudyFileError(UserError):
    """A study file has faults; all of them are reported at once."""

    def __init__(self, source: str, faults: Sequence[Fault], *, creating: bool = True) -> None:
        """Take the faults; `creating` if the command would otherwise have created something."""
        self.source = source
        self.faults = tuple(faults)
        count = "1 error" if len(self.faults) == 1 else f"{len(self.faults)} errors"
        nothing = "; nothing was created." if creating else ":"
        lines = "\n".join(f"  {fault}" for fault in self.faults)
        super().__init__(f"{source} has {count}{nothing}\n{lines}")


class UnknownStudyError(UserError):
    """There is no study or trial of that name; list them with `tuner studies`."""


class NoDatabaseError(UnknownStudyError):
    """There is no database here, and a command that only reads does not create one."""


class StudyConflictError(UserError):
    """The study exists and differs from the given file; see `--new-version`."""


class ObjectiveError(UserError):
    """The objective cannot be found, or violates its contract."""


class DataError(TunerError):
    """Images or labels cannot be used as they are; the message names the file."""

    exit_code = EXIT_USER


class MachineError(TunerError):
    """This machine cannot do what is asked (memory, device, disk, permission)."""


class DatabaseError(MachineError):
    """The database cannot be used; `tuner db status` shows its state."""


class DatabaseUnreachableError(DatabaseError):
    """Nothing answers at the database's address."""


class DatabaseNewerError(DatabaseError):
    """The database was written by a newer tuner; upgrade this one."""


class StudyFailedError(TunerError):
    """The study ended, and some of its trials failed for good; see `tuner table`."""

    exit_code = EXIT_FAILURES
