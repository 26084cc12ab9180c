"""DONE.json and FAILED.json beside an upload: how whoever uploaded hears of the end without knowing Prefect."""

import json
from typing import Any

from botocore.exceptions import ClientError
from pydantic import BaseModel, ConfigDict

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
        """The signal that is there, whatever it answers."""
        content = self._read(upload.bucket, upload.signal_key(name))
        return None if content is None else Signal.model_validate_json(content)

    def forget_older(self, upload: Upload) -> None:
        """Remove signals that answer another version: whoever waits shall not take them for an answer to this one."""
        for name in (DONE, FAILED):
            present = self.signal(upload, name)
            if present is not None and present.version != upload.version:
                self._s3.delete_object(Bucket=upload.bucket, Key=upload.signal_key(name))

    def announce(self, upload: Upload, name: str, signal: Signal) -> None:
        """Put a signal, in place of an older one."""
        self._s3.put_object(
            Bucket=upload.bucket,
            Key=upload.signal_key(name),
            Body=signal.model_dump_json(indent=1).encode(),
            ContentType="application/json",
        )

    def done(self, upload: Upload, run: str) -> Signal:
        """What there is to say of a result, from its report."""
        content = self._read(self._results_bucket, self._results_key(upload, "report.json"))
        report = json.loads(content) if content is not None else {}
        return Signal(
            version=upload.version,
            run=run,
            results=self.destination(upload),
            page=self._link(upload, "index.html"),
            report=self._link(upload, "report.html"),
            psnr_db=report.get("train", {}).get("psnr_db"),
            seconds=report.get("seconds", {}).get("total"),
            cost_usd=report.get("cost_usd", {}).get("total"),
        )

    def _link(self, upload: Upload, name: str) -> str:
        if self._public_url is not None:
            return f"{self._public_url.rstrip('/')}/{upload.capture}/{name}"
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
