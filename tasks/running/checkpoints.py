"""A stage's checkpoints in the workspace: saved at intervals, and once more when the run has to end early.

If a checkpoint cannot be saved or read, the log has a warning and the stage continues.
"""

import contextvars
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from tasks.core.errors import FormatError, SpaceportError
from tasks.core.refs import RunContext
from tasks.core.storage import CheckpointPlace
from tasks.core.training.checkpoint import Arrays, read_checkpoint, write_checkpoint
from tasks.places.workspace import open_workspace
from tasks.reporting.progress import run_logger

KEPT = 2  # the older one is used if the newer one is damaged
SUFFIX = ".npz"
UPLOAD_PATIENCE_SECONDS = 8.0  # twice at most: a run that ends waits for its last upload and the one before


class Interrupted(Exception):  # noqa: N818 - not an error
    """Ends a computation once its state is saved."""


class StageCheckpoints:
    """See `tasks.core.training.checkpoint.Checkpoints`. Safe to be interrupted from another thread."""

    def __init__(self, context: RunContext, key: str, interval_seconds: float) -> None:
        """`key` is that of the output being computed. With an `interval_seconds` of 0, nothing is saved or loaded.

        A run that computes everything anew resumes only from checkpoints of its own earlier attempts.
        """
        self._store, self._key = open_workspace(context.workspace), key
        self._place: CheckpointPlace = self._store.checkpoints(key, context.run if context.fresh else None)
        self._interval_seconds = interval_seconds
        self._saved_at = time.monotonic()
        self._interrupted = threading.Event()
        self._upload: threading.Thread | None = None
        self._discarded = False

    def load(self, belongs_to: str) -> Arrays | None:
        """Load the newest intact checkpoint of the same computation; others are removed."""
        self._saved_at = time.monotonic()
        if self._interval_seconds == 0:
            return None
        try:
            names = [name for name in self._place.names() if name.endswith(SUFFIX)]
            if names:
                with self._place.scratch() as scratch:
                    return self._first_usable(names, belongs_to, scratch)
        except (SpaceportError, OSError) as error:
            run_logger().warning("checkpoints could not be looked for (%s)", error)
        return None

    def due(self) -> bool:
        """Whether the interval has passed and the last upload is done; always true when the run has to end."""
        if self._interrupted.is_set():
            return True
        if self._interval_seconds == 0 or time.monotonic() - self._saved_at < self._interval_seconds:
            return False
        return self._upload is None or not self._upload.is_alive()

    def save(self, step: int, belongs_to: str, arrays: Arrays) -> None:
        """Save a state; a thread uploads it. If the run has to end, wait for the upload and raise Interrupted."""
        last = self._interrupted.is_set()
        if self._interval_seconds > 0:
            try:
                self._keep(step, belongs_to, arrays)
            except (SpaceportError, OSError) as error:
                run_logger().warning("the state at step %d could not be saved (%s)", step, error)
            if last:
                self._wait_for_upload()
        self._saved_at = time.monotonic()
        if last:
            raise Interrupted(f"at step {step}")

    def interrupt(self) -> None:
        """Let the computation save its state after the current step and end."""
        self._interrupted.set()

    def discard(self) -> None:
        """Remove the checkpoints of this output, because it is stored or they are useless."""
        self._discarded = True
        self._wait_for_upload()
        try:
            self._store.remove_checkpoints(self._key)
        except (SpaceportError, OSError) as error:
            run_logger().warning("checkpoints that are no longer needed could not be removed (%s)", error)

    def _first_usable(self, names: list[str], belongs_to: str, scratch: Path) -> Arrays | None:
        for name in names:
            try:
                arrays = read_checkpoint(self._place.get(name, scratch), belongs_to)
            except FormatError as error:
                run_logger().warning("checkpoint %s is not used: %s", name, error)
                self._place.remove([name])
            except (SpaceportError, OSError) as error:
                run_logger().warning("checkpoint %s cannot be read (%s)", name, error)
            else:
                run_logger().info("resumed at step %d", int(name.removesuffix(SUFFIX)))
                return arrays
        return None

    def _keep(self, step: int, belongs_to: str, arrays: Arrays) -> None:
        with ExitStack() as stack:
            file = stack.enter_context(self._place.scratch()) / f"{step:09}{SUFFIX}"
            write_checkpoint(file, belongs_to, arrays)
            if not self._place.is_remote:
                self._put(file)
                return
            self._wait_for_upload()  # only when the run has to end; otherwise no upload is in progress
            work, context = stack.pop_all(), contextvars.copy_context()
            # A daemon thread, so that a silent store cannot hold up the end of the process.
            self._upload = threading.Thread(
                target=context.run, args=(self._put_apart, work, file), name="checkpoint", daemon=True
            )
            self._upload.start()

    def _put_apart(self, work: ExitStack, file: Path) -> None:
        try:
            with work:
                self._put(file)
            if self._discarded:
                self._place.remove([file.name])
        except (SpaceportError, OSError) as error:
            run_logger().warning("checkpoint %s could not be uploaded (%s)", file.name, error)

    def _put(self, file: Path) -> None:
        self._place.put(file)
        self._place.remove([name for name in self._place.names() if name.endswith(SUFFIX)][KEPT:])

    def _wait_for_upload(self) -> None:
        if self._upload is not None:
            self._upload.join(UPLOAD_PATIENCE_SECONDS)
