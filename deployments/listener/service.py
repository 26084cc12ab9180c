"""The two loops of the listener: start runs for messages, and write signals for runs that have ended."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TypeVar

import httpx
from botocore.exceptions import BotoCoreError, ClientError
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import PrefectHTTPStatusError

from deployments.listener.messages import ATTEMPTS, POLL_SECONDS, Message, Messages, log
from deployments.listener.runs import Runs
from deployments.listener.signals import Places, Signal, bounded, reason_of
from deployments.listener.uploads import (
    DONE,
    FAILED,
    Limits,
    MessageError,
    Ready,
    Upload,
    lowered,
    read_event,
    read_ready,
    too_many_fresh,
)
from deployments.runs import Ends
from tasks.core.errors import InputError
from tasks.core.storage.s3_errors import may_pass

WORKERS = 4  # messages at once
PATIENCE_SECONDS = 600.0  # a message is kept for this long while the Prefect server or S3 is away
RETRY_SECONDS = 5.0
SIGNALS_SECONDS = 10.0
GIVE_BACK_SECONDS = 30  # doubled with every delivery
FRESH_WITHIN = timedelta(days=1)
PASSING = (httpx.TransportError, PrefectHTTPStatusError, BotoCoreError, ClientError)

T = TypeVar("T")


class Listener:
    """Listens until `stop`; then finishes the messages in progress."""

    def __init__(
        self, messages: Messages, places: Places, runs: Runs, bucket: str, limits: Limits | None = None
    ) -> None:
        self._messages, self._places, self._runs, self._bucket = messages, places, runs, bucket
        self._limits = limits or Limits()
        self._counting = threading.Lock()  # held while runs that compute everything anew are counted and one is created
        self._stopping = threading.Event()
        self._ends = Ends(runs.ended)

    def stop(self) -> None:
        """Take no more messages. Safe in a signal handler."""
        self._stopping.set()

    def listen(self, poll_seconds: int = POLL_SECONDS, signals_seconds: float = SIGNALS_SECONDS) -> None:
        """Work until `stop`.

        Raises errors of the queue itself that last too long, and unexpected errors of the Prefect server.
        """
        with ThreadPoolExecutor(1, "signals") as announcer:
            announcing = announcer.submit(self._announce_until_stopped, signals_seconds)
            try:
                self._work(poll_seconds)
            finally:
                self._stopping.set()
        announcing.result()

    def _work(self, poll_seconds: int) -> None:
        with self._messages, ThreadPoolExecutor(WORKERS, "message") as pool:
            in_hand: set[Future[None]] = set()
            while not self._stopping.is_set():
                taken = self._patiently(lambda: self._messages.take(poll_seconds))
                in_hand |= {pool.submit(self.handle, message) for message in taken}
                done, in_hand = wait(
                    in_hand, timeout=None if len(in_hand) >= WORKERS else 0, return_when=FIRST_COMPLETED
                )
                for each in done:
                    each.result()

    def handle(self, message: Message) -> None:
        """Settle one message: start a run, move it to the dead letters, or return it to the queue.

        Raises nothing. A message that cannot even be settled is delivered again when it is visible again.
        """
        try:
            self._settle(message)
        except Exception:  # noqa: BLE001 - must not keep other messages from being handled
            log.exception("message %s could not be settled; the queue delivers it again", message.id)

    def _settle(self, message: Message) -> None:
        try:
            reason = self._rejected(message)
        except Exception as error:  # noqa: BLE001 - whatever it is, the message must be settled
            log.exception("message %s failed, delivery %d", message.id, message.deliveries)
            if message.is_last_delivery:
                self._tell_given_up(message)
                self._messages.put_aside(message, f"{type(error).__name__}: {error}")
            else:
                self._messages.give_back(message, after_seconds=GIVE_BACK_SECONDS * 2**message.deliveries)
            return
        if reason is None:
            self._messages.done(message)
        else:
            self._messages.put_aside(message, reason)

    def _rejected(self, message: Message) -> str | None:
        """Start the run that a message asks for. Returns the reason if it cannot become a run."""
        try:
            upload = read_event(message.body, self._bucket)
        except MessageError as error:
            log.warning("message %s is put aside: %s", message.id, error)
            return str(error)
        if not self._patiently(lambda: self._places.is_current(upload)):
            log.info("%s has been replaced or removed since; its own message speaks for the newer version", upload)
            return None
        try:
            run, reason = self._run(upload), None
        except InputError as error:
            log.warning("%s is put aside: %s", upload, error)
            self._tell_failed(upload, str(error))
            run, reason = None, str(error)
        self._supersede(upload, run)
        return reason

    def _run(self, upload: Upload) -> FlowRun:
        """Start or find the run of an upload. Raises InputError for an upload that cannot become one."""
        upload.require_plain_name()
        if upload.is_archive:
            ready = lowered(Ready(), self._limits)
        else:
            ready = read_ready(self._patiently(lambda: self._places.content(upload)), self._limits)
        destination = self._places.destination(upload)
        with self._counting if ready.fresh else nullcontext():
            if ready.fresh:
                since = datetime.now(UTC) - FRESH_WITHIN
                if self._patiently(lambda: self._runs.fresh_since(upload, since)) >= self._limits.max_fresh_a_day:
                    raise too_many_fresh(self._limits)
            run = self._patiently(lambda: self._runs.start(upload, ready, destination))
        log.info("%s: run %s %s", upload, run.id, run.state_name)
        return run

    def _supersede(self, upload: Upload, run: FlowRun | None) -> None:
        """Let the newest version win: cancel other versions' runs, or this one's if it has been replaced since.

        The others are listed before the current version is looked up, so that no newer version's run is among them.
        """
        others = self._patiently(lambda: self._runs.others(upload))
        if self._patiently(lambda: self._places.is_current(upload)):
            replaced = others
            self._patiently(lambda: self._places.forget_older(upload))
        else:
            replaced = [run] if run else []
            self._patiently(lambda: self._places.forget(upload))
        for each in replaced:
            log.info("run %s is cancelled: its upload was replaced or removed", each.id)
            self._patiently(partial(self._runs.cancel, each))

    def _tell_failed(self, upload: Upload, error: str) -> None:
        failed = Signal(version=upload.version, run=None, error=bounded(error))
        self._patiently(lambda: self._places.announce(upload, FAILED, failed))
        self._patiently(lambda: self._places.forget_other(upload, FAILED))

    def _tell_given_up(self, message: Message) -> None:
        """Write FAILED.json for an upload that is given up. Raises nothing, since the dead letters have the reason."""
        try:
            upload = read_event(message.body, self._bucket)
            if self._places.is_current(upload):
                self._tell_failed(upload, f"No run could be started, in {ATTEMPTS} tries. Ask {self._limits.ask}.")
        except Exception:  # noqa: BLE001 - must not keep the message from being put aside
            log.exception("message %s: %s cannot be put", message.id, FAILED)

    def _announce_until_stopped(self, interval_seconds: float) -> None:
        try:
            while not self._stopping.wait(interval_seconds):
                try:
                    self.announce_ends()
                except PASSING as error:
                    log.warning("signals have to wait (%s)", error)
        finally:  # a listener that cannot signal only appears healthy: it ends, and its service starts another one
            self._stopping.set()

    def announce_ends(self) -> None:
        """Write a signal for every run that has ended and has none. A failed write does not delay the others.

        Raises the Prefect server's errors when the runs are listed.
        """
        for run in self._ends.due():
            if self._stopping.is_set():
                return
            try:
                self._announce(run)
            except Exception as error:  # noqa: BLE001 - must not hold up other signals
                unforeseen = not isinstance(error, PASSING)
                log.warning("the signal of run %s has to wait (%s)", run.id, error, exc_info=unforeseen)
                self._ends.put_off(run)
            else:
                self._ends.settle(run)

    def _announce(self, run: FlowRun) -> None:
        upload = Upload.of_identity(run.idempotency_key)
        if upload is None or upload.bucket != self._bucket or not self._places.is_current(upload):
            return
        name = DONE if run.state_type == StateType.COMPLETED else FAILED
        present = self._places.signal(upload, name)
        error = None if name == DONE else reason_of(run, self._limits.ask)
        if present is None or (present.version, present.run, present.error) != (upload.version, str(run.id), error):
            signal = (
                self._places.done(upload, run)
                if name == DONE
                else Signal(version=upload.version, run=str(run.id), error=error)
            )
            self._places.announce(upload, name, signal)
            log.info("%s: %s", upload, name)
        self._places.forget_other(upload, name)  # of the run before it was retried
        if not self._places.is_current(upload):  # replaced meanwhile: the newer version's run answers
            self._places.forget(upload)

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Retry while a server is away, within the patience for it. The message stays ours meanwhile."""
        end = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return ask()
            except PASSING as error:
                if not _may_pass(error) or time.monotonic() > end or self._stopping.is_set():
                    raise
                log.warning("trying again: %s", error)
                self._stopping.wait(RETRY_SECONDS)


def _may_pass(error: Exception) -> bool:
    """Whether the same request may succeed later."""
    if isinstance(error, ClientError):
        return may_pass(error)
    if isinstance(error, PrefectHTTPStatusError):
        status = error.response.status_code
        return status in (408, 429) or status >= 500
    return True
