"""DONE.json and FAILED.json beside an upload: they tell the uploader how it ended, without Prefect."""

from typing import Any
from urllib.parse import quote

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict, ValidationError

from deployments.listener.log import log
from deployments.listener.uploads import READY_BYTES, Upload

DONE, FAILED = "DONE.json", "FAILED.json"
LINK_SECONDS = 7 * 24 * 3600  # the longest that S3 signs; a role's own credentials end after some hours
_MISSING = {"404", "NoSuchKey", "NotFound", "NoSuchVersion"}


class Signal(BaseModel):
    """What either file says."""

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
    """What a signal repeats of report.json; the names are those of tasks/core/measurements.py."""

    train: _Quality = _Quality()
    seconds: _Total = _Total()
    cost_usd: _Total = _Total()


class Places:
    """The buckets of uploads and results."""

    def __init__(self, s3: Any, results: str, public_url: str | None) -> None:
        self._s3 = s3
        self._results_bucket, _, self._results_prefix = results.removeprefix("s3://").partition("/")
        self._public_url = public_url

    def destination(self, upload: Upload) -> str:
        """Where the run of an upload publishes."""
        return f"s3://{self._results_bucket}/{self._results_key(upload, '')}".rstrip("/")

    def is_current(self, upload: Upload) -> bool:
        """Whether the object is still in this version, and not replaced or removed since."""
        try:
            found = self._s3.head_object(Bucket=upload.bucket, Key=upload.key)
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                return False
            raise
        return upload.version in (found.get("VersionId"), found["ETag"].strip('"'))

    def content(self, upload: Upload) -> bytes:
        """Of READY.json, no more of it than it may hold."""
        answer = self._s3.get_object(Bucket=upload.bucket, Key=upload.key)
        content: bytes = answer["Body"].read(READY_BYTES + 1)
        return content

    def signal(self, upload: Upload, name: str) -> Signal | None:
        """The signal that is there, whatever it answers; None where there is none, or a file that is not one."""
        content = self._read(upload.bucket, upload.signal_key(name))
        if content is None:
            return None
        try:
            return Signal.model_validate_json(content)
        except ValidationError:  # those who upload can put anything there
            log.warning("%s beside %s is no signal of ours", name, upload.identity)
            return None

    def forget_older(self, upload: Upload) -> None:
        """Remove signals that answer another version: whoever waits shall not take them for an answer to this one."""
        for name in (DONE, FAILED):
            present = self.signal(upload, name)
            if present is not None and present.version != upload.version:
                self._s3.delete_object(Bucket=upload.bucket, Key=upload.signal_key(name))

    def forget_other(self, upload: Upload, name: str) -> None:
        """Remove the signal that says the opposite of `name`, as after a retry. A file that is not ours stays."""
        other = FAILED if name == DONE else DONE
        if self.signal(upload, other) is not None:
            self._s3.delete_object(Bucket=upload.bucket, Key=upload.signal_key(other))

    def announce(self, upload: Upload, name: str, signal: Signal) -> None:
        """Put a signal, in place of an older one; `forget_other` completes it."""
        self._s3.put_object(
            Bucket=upload.bucket,
            Key=upload.signal_key(name),
            Body=signal.model_dump_json(indent=1).encode(),
            ContentType="application/json",
        )

    def done(self, upload: Upload, run: str) -> Signal:
        """What there is to say of a result, from its report."""
        content = self._read(self._results_bucket, self._results_key(upload, "report.json"))
        try:
            told = _Told.model_validate_json(content or "{}")
        except ValidationError as error:  # of another version, or not ours; the result is there all the same
            log.warning("report.json of %s cannot be read (%s)", upload.identity, error.errors()[0]["msg"])
            told = _Told()
        return Signal(
            version=upload.version,
            run=run,
            results=self.destination(upload),
            page=self._link(upload, "index.html"),
            report=self._link(upload, "report.html"),
            psnr_db=told.train.psnr_db,
            seconds=told.seconds.total,
            cost_usd=told.cost_usd.total,
        )

    def _link(self, upload: Upload, name: str) -> str:
        if self._public_url is not None:
            return f"{self._public_url.rstrip('/')}/{quote(f'{upload.capture}/{name}')}"
        parameters = {"Bucket": self._results_bucket, "Key": self._results_key(upload, name)}
        return str(self._s3.generate_presigned_url("get_object", Params=parameters, ExpiresIn=LINK_SECONDS))

    def _results_key(self, upload: Upload, name: str) -> str:
        return "/".join(part for part in (self._results_prefix, upload.capture, name) if part)

    def _read(self, bucket: str, key: str) -> bytes | None:
        try:
            content: bytes = self._s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        except ClientError as error:
            if error.response["Error"]["Code"] in _MISSING:
                return None
            raise
        return content
