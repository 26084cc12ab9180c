"""DONE.json and FAILED.json next to an upload: they report the end of its run to the uploader, without Prefect.

FAILED.json contains only what uploaders can act on, and nothing about the machines that worked for them.
"""

import re
from typing import Any
from urllib.parse import quote

from botocore.exceptions import ClientError
from prefect.client.schemas.objects import FlowRun, StateType
from pydantic import BaseModel, ConfigDict, ValidationError

from deployments.listener.messages import log
from deployments.listener.uploads import CHOICES, DONE, FAILED, READY_BYTES, Upload
from tasks.core import errors
from tasks.core.errors import UnsafeNameError
from tasks.core.options import ReconstructOptions
from tasks.core.safe_names import MAX_KEY_BYTES, printable, safe_name
from tasks.core.storage.s3_errors import is_missing, may_pass

MOST_CHARACTERS = 600
# Messages of these errors are about the photos or an amount; messages of others can contain variables and paths.
TOLD = (
    errors.PhotosError,
    errors.RegistrationError,
    errors.FormatError,
    errors.UnsafeNameError,
    errors.DestinationError,
    errors.TrainingDivergedError,
    errors.OutOfMemoryError,
    errors.DiskFullError,
)
_NAMES = {kind.__name__ for kind in TOLD}
# As Prefect writes an exception into a state's message.
_RAISED = re.compile(r"(?:Flow run encountered an exception:\s+)?(?P<kind>\w+): .+", re.DOTALL)
_RAISED_BEFORE = re.compile(r"Flow run encountered an exception:\s+")
_OPERATORS = [  # options; the longer of two names with the same start comes first
    f"{stage}.{name}"
    for stage, choices in CHOICES.items()
    for name in sorted(set(type(getattr(ReconstructOptions(), stage)).model_fields) - choices, reverse=True)
]
_ENDS = {
    StateType.CANCELLED: "The run was cancelled.",
    StateType.CRASHED: "The run ended without a word: its process was ended, or its machine is gone.",
    StateType.FAILED: "The run failed for a reason that its log has.",
}


def reason_of(run: FlowRun, ask: str) -> str:
    """Return the sentence for a run that has not completed: its own if it is about the photos, else whom to ask."""
    message = (run.state.message if run.state else None) or ""
    raised = _RAISED.fullmatch(message)
    if raised and raised["kind"] in _NAMES:
        more = f" {_not_to_choose(message)}: ask {ask}." if _not_to_choose(message) else ""
        return bounded(_RAISED_BEFORE.sub("", message, count=1), MOST_CHARACTERS - len(more)) + more
    end = _ENDS.get(run.state_type or StateType.FAILED, _ENDS[StateType.FAILED])
    return bounded(f"{end} Ask {ask}, who finds it as run {run.id}.")


def bounded(sentence: str, most: int = MOST_CHARACTERS) -> str:
    """Return the sentence on one line, without control characters, and cut to the limit of FAILED.json."""
    text = printable(" ".join(sentence.split()))
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _not_to_choose(message: str) -> str:
    """Return a note on an option in the message that uploads cannot choose; empty if there is none."""
    return next((f"Uploads cannot choose {name}" for name in _OPERATORS if name in message), "")


LINK_SECONDS = 7 * 24 * 3600  # the longest that S3 signs; a role's own credentials end after some hours
SIGNAL_BYTES = 64 * 1024  # ours have about a thousand; uploaders can write anything there
REPORT_BYTES = 16 * 2**20  # a report of some thousand photos has about one


class Signal(BaseModel):
    """Content of either file."""

    model_config = ConfigDict(frozen=True)

    version: str  # of the upload that it answers
    run: str | None  # Prefect's id; null when no run came of it
    error: str | None = None
    results: str | None = None  # s3://…
    page: str | None = None  # a link
    report: str | None = None  # a link
    psnr_db: float | None = None
    seconds: float | None = None
    cost_usd: float | None = None


class _Quality(BaseModel):
    psnr_db: float | None = None


class _Total(BaseModel):
    total: float | None = None


class _Told(BaseModel):
    """Figures of report.json that a signal repeats; the names are those of tasks/core/measurements.py."""

    train: _Quality = _Quality()
    seconds: _Total = _Total()
    cost_usd: _Total = _Total()


class Places:
    """The buckets of uploads and results."""

    def __init__(self, s3: Any, results: str, public_url: str | None) -> None:
        self._s3 = s3
        self._results_bucket, _, prefix = results.removeprefix("s3://").partition("/")
        self._results_start = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._public_url = public_url

    def destination(self, upload: Upload) -> str:
        """Return the folder where an upload's run publishes; no other capture or version has the same."""
        return f"s3://{self._results_bucket}/{self._results_start}{upload.place}"

    def is_current(self, upload: Upload) -> bool:
        """Whether this is still the object's current version, neither replaced nor removed since."""
        try:
            found = self._s3.head_object(Bucket=upload.bucket, Key=upload.key)
        except ClientError as error:
            if is_missing(error, self._s3, upload.bucket, upload.key):
                return False
            raise
        return upload.version in (found.get("VersionId"), found["ETag"].strip('"'))

    def content(self, upload: Upload) -> bytes:
        """Read READY.json, at most one byte more than its limit. Empty if the file is gone."""
        return self._read(upload.bucket, upload.key, READY_BYTES) or b""

    def signal(self, upload: Upload, name: str) -> Signal | None:
        """Read the existing signal, for any version; None if there is none, or the file is not a signal."""
        content = self._read(upload.bucket, upload.signal_key(name), SIGNAL_BYTES)
        if content is None:
            return None
        try:
            if len(content) <= SIGNAL_BYTES:
                return Signal.model_validate_json(content)
        except ValidationError:  # uploaders can write anything there
            pass
        log.warning("%s beside %s is no signal of ours", name, upload)
        return None

    def forget_older(self, upload: Upload) -> None:
        """Remove signals for other versions, so that they are not mistaken for signals for this one."""
        for name in (DONE, FAILED):
            present = self.signal(upload, name)
            if present is not None and present.version != upload.version:
                self._s3.delete_object(Bucket=upload.bucket, Key=upload.signal_key(name))

    def forget(self, upload: Upload) -> None:
        """Remove signals for this version."""
        for name in (DONE, FAILED):
            present = self.signal(upload, name)
            if present is not None and present.version == upload.version:
                self._s3.delete_object(Bucket=upload.bucket, Key=upload.signal_key(name))

    def forget_other(self, upload: Upload, name: str) -> None:
        """Remove the opposite signal of `name`, for example after a retry. A file that is not ours stays."""
        other = FAILED if name == DONE else DONE
        if self.signal(upload, other) is not None:
            self._s3.delete_object(Bucket=upload.bucket, Key=upload.signal_key(other))

    def announce(self, upload: Upload, name: str, signal: Signal) -> None:
        """Write a signal over an older one; `forget_other` completes the change."""
        self._s3.put_object(
            Bucket=upload.bucket,
            Key=upload.signal_key(name),
            Body=signal.model_dump_json(indent=1).encode(),
            ContentType="application/json",
        )

    def done(self, upload: Upload, run: FlowRun) -> Signal:
        """Return the signal for a result, with figures from its report if that can be read.

        Raises botocore's temporary errors.
        """
        place = self._place_of(upload, run)
        told = self._told(f"{self._results_start}{place}/report.json")
        return Signal(
            version=upload.version,
            run=str(run.id),
            results=f"s3://{self._results_bucket}/{self._results_start}{place}",
            page=self._link(place, "index.html"),
            report=self._link(place, "report.html"),
            psnr_db=told.train.psnr_db,
            seconds=told.seconds.total,
            cost_usd=told.cost_usd.total,
        )

    def _place_of(self, upload: Upload, run: FlowRun) -> str:
        """Return the folder among all results where the run has published; earlier releases named it differently."""
        start = f"s3://{self._results_bucket}/{self._results_start}"
        said = str(run.parameters.get("destination", ""))
        place = said.removeprefix(start)
        try:
            if said.startswith(start) and safe_name(place, MAX_KEY_BYTES) == place:
                return place
        except UnsafeNameError:
            pass
        return upload.place

    def _told(self, key: str) -> _Told:
        """Return the report's figures; none if it cannot be read, since the result exists anyway."""
        try:
            content = self._read(self._results_bucket, key, REPORT_BYTES)
            if content is not None and len(content) <= REPORT_BYTES:
                return _Told.model_validate_json(content)
            log.warning("%s is %s", key, "not there" if content is None else "too long")
        except ClientError as error:
            if may_pass(error):
                raise
            log.warning("%s cannot be read (%s)", key, error)
        except ValidationError as error:  # of another release, or not ours
            log.warning("%s cannot be read (%s)", key, error.errors()[0]["msg"])
        return _Told()

    def _link(self, place: str, name: str) -> str:
        if self._public_url is not None:
            return f"{self._public_url.rstrip('/')}/{quote(f'{place}/{name}')}"
        parameters = {"Bucket": self._results_bucket, "Key": f"{self._results_start}{place}/{name}"}
        return str(self._s3.generate_presigned_url("get_object", Params=parameters, ExpiresIn=LINK_SECONDS))

    def _read(self, bucket: str, key: str, at_most: int) -> bytes | None:
        """Read an object, or its first `at_most` bytes and one more; None if there is none."""
        try:
            body = self._s3.get_object(Bucket=bucket, Key=key)["Body"]
        except ClientError as error:
            if is_missing(error, self._s3, bucket, key):
                return None
            raise
        with body:
            content: bytes = body.read(at_most + 1)
        return content
