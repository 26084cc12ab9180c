"""Answers that are not S3's, and those that never end.

A proxy, a captive portal or a wrong address may answer with status 200 and a page of its own. boto3 takes such an
answer for "nothing is there" or "it is stored". And a server that sends a byte now and then is never too slow for it,
because its time limit is for each byte.
"""

import threading
import time
from queue import Empty, SimpleQueue
from typing import Any

from botocore.exceptions import BotoCoreError
from botocore.handlers import add_expect_header

_SLOWEST_BYTES_A_SECOND = 1000.0
_GRACE_SECONDS = 60.0  # in which nothing need come, as boto3 allows
_ANSWER_SECONDS = 90.0  # to connect, which may take 10, and for an answer without a stream
_PIECE_BYTES = 1 << 18

_WITH_ETAG = frozenset(["PutObject", "GetObject", "UploadPart", "CompleteMultipartUpload"])


class ForeignAnswerError(BotoCoreError):  # type: ignore[misc]  # botocore has no types
    """An answer with status 200 that S3 does not give."""

    fmt = "the answer to {operation} is not S3's, {lack} (a proxy, or a wrong AWS_ENDPOINT_URL?)"


class SlowAnswerError(BotoCoreError):  # type: ignore[misc]  # botocore has no types
    """An answer that comes so slowly that it may never end. boto3 does not try again."""

    fmt = "{url} answers too slowly: {came} bytes in {seconds:.0f} s"


def watch_answers(client: Any) -> None:
    """Make a client raise ForeignAnswerError or SlowAnswerError where it would believe an answer, or wait for ever."""
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
    """What every answer of S3 to an operation has and this one has not; None when nothing is missing."""
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
    """What sends boto3's requests, with a limit for the whole of an answer but for a stream."""

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
