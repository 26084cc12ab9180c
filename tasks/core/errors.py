"""Every error that this product raises on purpose.

SpaceportError
├── InputError              the caller's photos, options or paths are wrong; a retry cannot help       exit status 2
│   ├── PhotosError           no usable photos, an unsafe archive, an unreadable folder
│   ├── OptionsError          an unknown option, or a value out of bounds
│   ├── DestinationError      the output place cannot be written
│   ├── RegistrationError     too few photos could be placed in one scene
│   ├── FormatError           a .ply, .sog or COLMAP file does not hold what its format promises
│   └── UnsafeNameError       a file name in an archive, a model or a listing leads out of its folder
│       └── UnstorableNameError   such a name is too long, or holds what no name should
├── MissingPartError        something this machine needs is not installed; the message says how to      exit status 1
├── ServerError             the Prefect server of this machine does not run, or could not be started    exit status 1
├── StageError              a stage failed although its input was acceptable                            exit status 1
│   ├── SfmCrashError         the structure-from-motion process died (it can abort inside native code)  retryable
│   ├── TrainingDivergedError the optimisation produced values that are not finite
│   ├── OutOfMemoryError      the stage needs more memory than there is, whatever was given up
│   ├── DiskFullError         a disk of this machine has no room for what a stage writes
│   ├── StageCrashedError     the stage's own run died: its process was killed, its machine is gone     retryable
│   ├── StageCancelledError   the stage's own run was cancelled
│   └── StageHungError        the stage's own run took many times as long as expected, and was cancelled
└── StorageError            stored bytes are missing, altered or out of reach                           retryable

A message states the number, the limit and the remedy, in one or two sentences. It is shown to people unchanged.
"""

from typing import ClassVar


class SpaceportError(Exception):
    """Base class. `retryable`: another try may succeed. `exit_status`: that of the command line."""

    retryable: ClassVar[bool] = False
    exit_status: ClassVar[int] = 1


class InputError(SpaceportError):
    """The input or the command is wrong; the user has to change something."""

    exit_status = 2


class PhotosError(InputError):
    """The photos as a whole cannot be used."""


class OptionsError(InputError):
    """An option does not exist or its value is out of bounds."""


class DestinationError(InputError):
    """The output place cannot be written."""


class RegistrationError(InputError):
    """Too few photos could be registered into one model."""


class FormatError(InputError):
    """A file does not follow its format; the message names the file and the field."""


class UnsafeNameError(InputError):
    """A file name from outside cannot be joined to a folder."""


class UnstorableNameError(UnsafeNameError):
    """A file name from outside is harmless, but no folder can store it."""


class MissingPartError(SpaceportError):
    """A program or package that this machine needs is missing."""


class ServerError(SpaceportError):
    """The local Prefect server or one of its companions does not work; the message says what to do."""


class StageError(SpaceportError):
    """A stage failed on input that had passed validation."""


class SfmCrashError(StageError):
    """The structure-from-motion process ended without a result."""

    retryable = True


class TrainingDivergedError(StageError):
    """Training produced values that are not finite."""


class OutOfMemoryError(StageError):
    """Memory did not suffice, even with a smaller budget."""


class DiskFullError(StageError):
    """A disk is full; the message names it, with the free and needed space."""


class StageCrashedError(StageError):
    """The run of a stage ended without an error: it was killed, or its machine was lost."""

    retryable = True


class StageCancelledError(StageError):
    """The run of a stage was cancelled, but not the run that waits for it."""


class StageHungError(StageError):
    """The stage's own run took many times as long as expected and was cancelled."""


class StorageError(SpaceportError):
    """Stored bytes are missing, altered or out of reach."""

    retryable = True
