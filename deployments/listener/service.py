"""The two loops of the listener: messages become runs, and ends of runs become signals."""

import threading
import time
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from datetime import timedelta
from typing import TypeVar
from uuid import UUID

import httpx
from botocore.exceptions import BotoCoreError, ClientError
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.exceptions import PrefectHTTPStatusError

from deployments.listener.log import log
from deployments.listener.messages import POLL_SECONDS, Message, Messages
from deployments.listener.runs import Runs
from deployments.listener.signals import DONE, FAILED, Places, Signal
from deployments.listener.uploads import MessageError, Ready, Upload, read_event, read_ready
from tasks.core.errors import InputError

WORKERS = 4  # messages at once
PATIENCE_SECONDS = 600.0  # how long a message is kept while the Prefect server or S3 is away
RETRY_SECONDS = 5.0
SIGNALS_SECONDS = 10.0
LOOK_BACK = timedelta(days=7)  # ends that happened while no listener ran
PASSING = (httpx.TransportError, PrefectHTTPStatusError, BotoCoreError, ClientError)

T = TypeVar("T")


class Listener:
    """Listens until it is told to stop; then it finishes what it has in hand."""

    def __init__(self, messages: Messages, places: Places, runs: Runs, bucket: str) -> None:
        self._messages, self._places, self._runs, self._bucket = messages, places, runs, bucket
        self._stopping = threading.Event()
        self._announced: set[UUID] = set()

    def stop(self) -> None:
        """Take no further message. Safe in a signal handler."""
        self._stopping.set()

    def listen(self, poll_seconds: int = POLL_SECONDS, signals_seconds: float = SIGNALS_SECONDS) -> None:
        """Work until `stop`.

        Raises what went wrong with the queue itself, when it goes on for long, and what nobody foresaw of signals.
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
        """Bring one message to its end: a run, the dead letters, or back into the queue."""
        upload: Upload | None = None
        try:
            upload = read_event(message.body, self._bucket)
            self._start(upload)
        except MessageError as error:
            log.warning("message %s is put aside: %s", message.id, error)
            self._messages.put_aside(message, str(error))
        except InputError as error:
            assert upload is not None
            log.warning("%s is put aside: %s", upload.identity, error)
            self._places.announce(upload, FAILED, Signal(version=upload.version, run=None, error=str(error)))
            self._messages.put_aside(message, str(error))
        except Exception as error:  # noqa: BLE001 - whatever it is, the message must go somewhere, and the others go on
            log.exception("message %s failed, delivery %d", message.id, message.deliveries)
            if message.is_last_delivery:
                self._messages.put_aside(message, f"{type(error).__name__}: {error}")
            else:
                self._messages.give_back(message, after_seconds=30 * 2**message.deliveries)
        else:
            self._messages.done(message)

    def _start(self, upload: Upload) -> None:
        """Raises InputError for an upload that cannot become a run."""
        if not self._patiently(lambda: self._places.is_current(upload)):
            log.info(
                "%s has been replaced or removed since; its own message speaks for the newer version", upload.identity
            )
            return
        ready = Ready() if upload.is_archive else read_ready(self._patiently(lambda: self._places.content(upload)))
        destination = self._places.destination(upload)
        run = self._patiently(lambda: self._runs.start(upload, ready, destination))
        self._patiently(lambda: self._places.forget_older(upload))
        log.info("%s: run %s %s", upload.identity, run.id, run.state_name)

    def _announce_until_stopped(self, interval_seconds: float) -> None:
        try:
            while not self._stopping.wait(interval_seconds):
                try:
                    self.announce_ends()
                except PASSING as error:
                    log.warning("signals have to wait (%s)", error)
        finally:  # a listener without signals only looks well: it ends, and its service starts another one
            self._stopping.set()

    def announce_ends(self) -> None:
        """Put a signal for every run that has ended and has none."""
        for run in self._runs.ended(LOOK_BACK):
            upload = Upload.of_identity(run.idempotency_key)
            if run.id in self._announced or upload is None:
                continue
            name = DONE if run.state_type == StateType.COMPLETED else FAILED
            present = self._places.signal(upload, name)
            if (present is None or present.run != str(run.id)) and self._places.is_current(upload):
                self._places.announce(upload, name, self._signal(upload, run))
                log.info("%s: %s", upload.identity, name)
            self._announced.add(run.id)

    def _signal(self, upload: Upload, run: FlowRun) -> Signal:
        if run.state_type == StateType.COMPLETED:
            return self._places.done(upload, str(run.id))
        message = (run.state.message if run.state else None) or run.state_name or "unknown"
        return Signal(version=upload.version, run=str(run.id), error=message)

    def _patiently(self, ask: Callable[[], T]) -> T:
        """Ask again while a server is away, for as long as that may last; the message stays ours meanwhile."""
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
    """Whether the same question may be answered later."""
    if isinstance(error, PrefectHTTPStatusError):
        status = error.response.status_code
    elif isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    else:
        return True
    return status in (408, 429) or status >= 500
