"""Errors of S3: translate boto3's errors, and detect answers that boto3 would wrongly believe or wait for forever.

A proxy, a captive portal or a wrong address may answer with status 200 and a page of its own. boto3 understands such an
answer as "nothing is there" or "it is stored". And a server that sends a byte from time to time is never too slow for
boto3, whose time limit applies to each byte.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from queue import Empty, SimpleQueue
from typing import Any

from botocore import exceptions as boto
from botocore.exceptions import BotoCoreError
from botocore.handlers import add_expect_header
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError

from tasks.core.errors import DestinationError, InputError, SpaceportError, StorageError

_SLOWEST_BYTES_A_SECOND = 1000.0
_GRACE_SECONDS = 60.0  # in which nothing need come, as boto3 allows
_ANSWER_SECONDS = 90.0  # to connect, which may take 10, and for an answer without a stream
_PIECE_BYTES = 1 << 18

_WITH_ETAG = frozenset(["PutObject", "GetObject", "UploadPart", "CompleteMultipartUpload"])

MISSING_CODES = frozenset(["404", "NoSuchKey", "NotFound"])
LOST_RACE_CODES = frozenset(["412", "PreconditionFailed", "409", "ConditionalRequestConflict"])
_THROTTLING_CODES = frozenset(["SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded"])
_TIMEOUT_CODES = frozenset(["RequestTimeout", "RequestTimeoutException"])
_CREDENTIAL_CODES = frozenset(["ExpiredToken", "InvalidToken", "TokenRefreshRequired", "InvalidAccessKeyId"])
_BROKEN_BODY_CODES = frozenset(["BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "InvalidDigest"])

_RAISED = (
    *(boto.BotoCoreError, boto.ClientError, ResponseParserError),
    *(RetriesExceededError, S3DownloadFailedError, ValueError),
)


class ForeignAnswerError(BotoCoreError):  # type: ignore[misc]  # botocore has no types
    """An answer with status 200 that is not S3's."""

    fmt = "the answer to {operation} is not S3's, {lack} (a proxy, or a wrong AWS_ENDPOINT_URL?)"


class SlowAnswerError(BotoCoreError):  # type: ignore[misc]  # botocore has no types
    """An answer that comes so slowly that it may never end. boto3 does not try again."""

    fmt = "{url} answers too slowly: {came} bytes in {seconds:.0f} s"


def watch_answers(client: Any) -> None:
    """Make a client raise ForeignAnswerError or SlowAnswerError instead of believing an answer or waiting forever."""
    client.meta.events.register("after-call.s3", _check, unique_id="spaceport-answers")
    # botocore would ask before it sends, and where that answer is cut off it reads the connection's end for ever.
    client.meta.events.unregister("before-call.s3", add_expect_header)
    endpoint = client._endpoint  # there is no public way to what sends requests
    endpoint.http_session = _Patient(endpoint.http_session)


def _check(http_response: Any, parsed: dict[str, Any], model: Any, **_: object) -> None:
    if http_response.status_code >= 300:
        return
    lack = _lack(http_response, parsed, model.name)
    if lack is not None:
        raise ForeignAnswerError(operation=model.name, lack=lack)
    if model.has_streaming_output:
        body = parsed["Body"]
        body._raw_stream = _PatientStream(body._raw_stream, http_response.url)


def _lack(http_response: Any, parsed: dict[str, Any], operation: str) -> str | None:
    """The part that every answer of S3 to an operation has and this one lacks; None when nothing is missing."""
    if operation in _WITH_ETAG and not parsed.get("ETag"):
        return "it has no ETag"
    if operation == "CopyObject" and not parsed.get("CopyObjectResult", {}).get("ETag"):
        return "it has no ETag"
    if operation == "CreateMultipartUpload" and not parsed.get("UploadId"):
        return "it names no upload"
    if operation == "ListObjectsV2" and "IsTruncated" not in parsed:
        return "it is no list"
    if operation == "ListObjectsV2" and not all(_is_entry(found) for found in parsed.get("Contents", [])):
        return "an entry of its list lacks key, size or ETag"
    if operation == "DeleteObjects" and b"DeleteResult" not in http_response.content:
        return "it does not say what was removed"
    return None


def _is_entry(found: dict[str, Any]) -> bool:
    return {"Key", "Size", "ETag"} <= found.keys()


class _PatientStream:
    """A body that has to come with some speed."""

    def __init__(self, stream: Any, url: str) -> None:
        self._stream = stream
        self._url = url
        self._waited_seconds, self._came = 0.0, 0

    def read(self, amt: int | None = None) -> bytes:
        """As the stream's own. Raises SlowAnswerError."""
        pieces: list[bytes] = []
        left = amt
        while left is None or left > 0:
            begun = time.monotonic()
            piece = self._stream.read1(_PIECE_BYTES if left is None else min(left, _PIECE_BYTES))
            self._waited_seconds += time.monotonic() - begun
            self._came += len(piece)
            if not piece:
                break
            pieces.append(piece)
            left = None if left is None else left - len(piece)
            expected = self._waited_seconds * _SLOWEST_BYTES_A_SECOND
            if self._waited_seconds > _GRACE_SECONDS and self._came < expected:
                self._stream.close()
                raise SlowAnswerError(url=self._url, came=self._came, seconds=self._waited_seconds)
        return b"".join(pieces)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Patient:
    """Sends boto3's requests, with a time limit for the whole answer, except for a stream."""

    def __init__(self, session: Any) -> None:
        self._session = session

    def send(self, request: Any) -> Any:
        """As the session's own, in a thread that is left alone where it takes too long. Raises SlowAnswerError."""
        outcome: SimpleQueue[tuple[Any, BaseException | None]] = SimpleQueue()

        def work() -> None:
            try:
                outcome.put((self._session.send(request), None))
            except BaseException as error:  # noqa: BLE001 - raised below
                outcome.put((None, error))

        threading.Thread(target=work, name="request to S3", daemon=True).start()
        seconds = _ANSWER_SECONDS + _bytes_to_send(request) / _SLOWEST_BYTES_A_SECOND
        try:
            answer, error = outcome.get(timeout=seconds)
        except Empty:
            raise SlowAnswerError(url=request.url, came="too few", seconds=seconds) from None
        if error is not None:
            raise error
        return answer

    def close(self) -> None:
        """As the session's own."""
        self._session.close()


def _bytes_to_send(request: Any) -> int:
    length = request.headers.get("X-Amz-Decoded-Content-Length") or request.headers.get("Content-Length") or 0
    return int(length)


def code_of(error: boto.ClientError) -> str:
    """Return S3's error code."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: boto.ClientError) -> int:
    """Return S3's HTTP status; 0 if the answer has none."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def may_pass(error: boto.ClientError) -> bool:
    """Whether the same request may succeed later."""
    status = status_of(error)
    return status >= 500 or status in (408, 429) or code_of(error) in _THROTTLING_CODES | _TIMEOUT_CODES


def is_missing(error: boto.ClientError, client: Any, bucket: str, key: str) -> bool:
    """Whether a request failed because there is no such object.

    To those who may read objects and not list the bucket, S3 answers 403 for a missing object
    (https://docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html). AWS leaves open what it answers where they may
    list below some prefixes only. So a 403 is checked with a list; where that is refused as well, nothing is known.
    """
    if code_of(error) in MISSING_CODES:
        return True
    if status_of(error) != 403:
        return False
    try:
        answer = client.list_objects_v2(Bucket=bucket, Prefix=key, MaxKeys=1)
    except boto.ClientError:
        return False
    return all(found["Key"] != key for found in answer.get("Contents", []))


@contextmanager
def s3_errors(place: str, refused: type[InputError] = DestinationError) -> Iterator[None]:
    """Turn what boto3 raises about `place` into our errors.

    Raises:
        StorageError: the network, a server that is busy, broken or not S3, an object that is gone: a retry can help.
        InputError: of the class `refused`: no such bucket, no access, no credentials, a name that cannot be.
    """
    try:
        yield
    except RecursionError as error:  # boto3 asks for the bucket's region, is sent on, asks for the region …
        raise StorageError(
            f"{place} cannot be reached: the server sends every request on to another place without end; check the "
            "bucket's region and AWS_ENDPOINT_URL."
        ) from error
    except _RAISED as error:
        raise _translated(error, place, refused) from error


def _translated(error: Exception, place: str, refused: type[InputError]) -> SpaceportError:
    if isinstance(error, RetriesExceededError):
        return StorageError(f"{place} could not be read to the end: {error.last_exception}.")
    if isinstance(error, S3DownloadFailedError):
        return StorageError(f"{place} was changed by another process at the same time: {_one_line(error)}")
    if isinstance(error, boto.ClientError):
        return _answered(error, place, refused)
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError | boto.ProfileNotFound):
        return refused(
            f"There are no AWS credentials for {place} ({_one_line(error)}): set AWS_PROFILE or AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, give this machine a role, or name an S3Bucket block."
        )
    if isinstance(error, boto.ParamValidationError | boto.InvalidRegionError | boto.InvalidConfigError | ValueError):
        return refused(f"{place} cannot be used: {_one_line(error)}")
    return StorageError(f"{place} cannot be reached: {_one_line(error)}")


def _answered(error: boto.ClientError, place: str, refused: type[InputError]) -> SpaceportError:
    code = code_of(error)
    status = status_of(error)
    said = f"{code}: {error.response.get('Error', {}).get('Message', '')}".rstrip(": ")
    if code == "NoSuchBucket":
        return refused(f"There is no bucket for {place}: create it, or correct the name or AWS_ENDPOINT_URL.")
    if code in MISSING_CODES:
        return StorageError(f"An object of {place} is gone ({error.operation_name} says {said}).")
    if status >= 500 or status == 429 or code in _THROTTLING_CODES | _TIMEOUT_CODES | _BROKEN_BODY_CODES:
        return StorageError(f"S3 could not serve {place} just now ({error.operation_name} says {said}).")
    if code in LOST_RACE_CODES:
        return StorageError(f"{place} was changed by another process at the same time ({said}).")
    if status in (401, 403) or code in _CREDENTIAL_CODES:
        return refused(
            f"Access to {place} was denied ({error.operation_name} says {said}): check the credentials and that they "
            "permit s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject there."
        )
    return refused(f"{place} cannot be used ({error.operation_name} says {said}); check the bucket's name and region.")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
