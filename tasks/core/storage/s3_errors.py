"""What S3 answers, in the classes and words of this product."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from s3transfer.exceptions import RetriesExceededError, S3DownloadFailedError

from tasks.core.errors import DestinationError, InputError, SpaceportError, StorageError

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


def code_of(error: boto.ClientError) -> str:
    """S3's word for what went wrong."""
    return str(error.response.get("Error", {}).get("Code", ""))


def status_of(error: boto.ClientError) -> int:
    """S3's HTTP status; 0 where the answer has none."""
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
        return StorageError(f"{place} was changed by somebody else at the same moment: {_one_line(error)}")
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
        return StorageError(f"{place} was changed by somebody else at the same moment ({said}).")
    if status in (401, 403) or code in _CREDENTIAL_CODES:
        return refused(
            f"Access to {place} was denied ({error.operation_name} says {said}): check the credentials and that they "
            "permit s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject there."
        )
    return refused(f"{place} cannot be used ({error.operation_name} says {said}); check the bucket's name and region.")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
