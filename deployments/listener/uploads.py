"""What a message of the queue says: which object completed which capture."""

import hashlib
import json
import re

from pydantic import BaseModel, ConfigDict

from tasks.core.errors import InputError, UnsafeNameError
from tasks.core.safe_names import MAX_KEY_BYTES, safe_name, shown

FOLDER = "uploads"
READY_FILE = "READY.json"
DONE, FAILED = "DONE.json", "FAILED.json"
_KEY = re.compile(rf"{FOLDER}/(?P<capture>.+?)(?P<end>/{re.escape(READY_FILE)}|\.zip)", re.DOTALL)
_IDENTITY = re.compile(r"s3://(?P<bucket>[^/]+)/(?P<key>.+)#(?P<version>[^#]+)", re.DOTALL)
_VERSION = re.compile(r"[!-\"$-~]{1,1024}")  # ASCII without spaces and without #, which ends the key in an identity
_NOT_IN_PLACES = re.compile(r"[^A-Za-z0-9]+")
_PLACE_CHARACTERS = 40  # of the capture's own name, for people
_PLACE_DIGITS = 24  # hexadecimal, which tell places apart


class MessageError(InputError):
    """A message that will not become a run however often it is delivered."""


class Upload(BaseModel):
    """One version of the object that makes a capture complete: its READY.json, or the .zip that it is."""

    model_config = ConfigDict(frozen=True)

    bucket: str
    key: str
    version: str  # S3's version id; the ETag in a bucket without versions

    @property
    def identity(self) -> str:
        """The same for every message about this version: the run's idempotency key."""
        return f"s3://{self.bucket}/{self.key}#{self.version}"

    @classmethod
    def of_identity(cls, identity: str | None) -> "Upload | None":
        """The upload of a run; None for a run that was started by somebody else."""
        found = _IDENTITY.fullmatch(identity or "")
        if found is None or not _KEY.fullmatch(found["key"]) or not _VERSION.fullmatch(found["version"]):
            return None
        return cls(**found.groupdict())

    def __str__(self) -> str:
        """For logs: short, and without control characters."""
        return f"{shown(self.key)} {self.version[:8]}"

    @property
    def capture(self) -> str:
        """Its name, with slashes where the key has them."""
        found = _KEY.fullmatch(self.key)
        assert found is not None, self.key
        return found["capture"]

    @property
    def is_archive(self) -> bool:
        """Whether it is a .zip."""
        return self.key.endswith(".zip")

    @property
    def photos(self) -> str:
        """What the run is given as its photos."""
        place = self.key if self.is_archive else self.key.removesuffix(f"/{READY_FILE}")
        return f"s3://{self.bucket}/{place}"

    @property
    def place(self) -> str:
        """The folder of its result among all results: one part of a path, and no other version or capture has it."""
        return _place(self.capture, self.identity)

    @property
    def tag(self) -> str:
        """The same for all versions of this capture, and for no other capture: runs are found by it."""
        return _place(self.capture, f"s3://{self.bucket}/{self.key}")

    def signal_key(self, name: str) -> str:
        """The key of DONE.json or FAILED.json: in the capture's folder, or beside the archive."""
        return f"{self.key}.{name}" if self.is_archive else f"{self.key.removesuffix(READY_FILE)}{name}"

    def require_plain_name(self) -> None:
        """Raises InputError for a name that means another capture elsewhere: storage leaves out empty parts."""
        try:
            plain = safe_name(self.capture.strip("/"))
        except UnsafeNameError as error:
            raise InputError(f"{error} Upload it under another name.") from error
        if plain != self.capture:
            end = self.key.removeprefix(f"{FOLDER}/{self.capture}")
            raise InputError(
                f"The capture's name {shown(self.capture)} has empty parts, dots or backslashes between its slashes: "
                f"upload it as {shown(f'{FOLDER}/{plain}{end}')}."
            )


def places_start(capture: str) -> str:
    """How the places of all versions of a capture begin; other captures' may begin so too."""
    return f"{_NOT_IN_PLACES.sub('-', capture).strip('-')[:_PLACE_CHARACTERS].strip('-') or 'capture'}-"


def _place(capture: str, identity: str) -> str:
    digest = hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{places_start(capture)}{digest[:_PLACE_DIGITS]}"


def read_event(body: str, bucket: str) -> Upload:
    """The upload that an event of EventBridge tells of. Raises MessageError.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/ev-events.html. Keys in it are not URL-encoded.
    """
    try:
        event = json.loads(body)
        kind = event["source"], event["detail-type"]
        detail = event["detail"]
        there, stored = str(detail["bucket"]["name"]), detail["object"]
        key = str(stored["key"])
        # Emulators spell the ETag in other ways.
        version = stored.get("version-id") or stored.get("etag") or stored.get("eTag")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MessageError(f"not an event of S3 by EventBridge ({type(error).__name__}: {error})") from error
    if kind != ("aws.s3", "Object Created"):
        raise MessageError(f"an event {shown(str(kind[1]))} of {shown(str(kind[0]))}, not 'Object Created' of 'aws.s3'")
    if there != bucket:
        raise MessageError(f"about the bucket {shown(there)}, while this listener listens for {bucket}")
    found = _KEY.fullmatch(key)
    if found is None or {".", ".."} & set(key.split("/")):
        raise MessageError(
            f"the key {shown(key)} is neither {FOLDER}/<capture>/{READY_FILE} nor {FOLDER}/<capture>.zip"
        )
    if not version:
        raise MessageError("the object has neither version nor ETag")
    upload = Upload(bucket=there, key=key, version=str(version).strip('"'))
    if not _VERSION.fullmatch(upload.version):
        raise MessageError(f"the version {shown(upload.version)} is none of S3")
    _require_answerable(upload)
    return upload


def _require_answerable(upload: Upload) -> None:
    """Raises MessageError where nothing can be put beside the upload."""
    try:
        longest = max(len(upload.signal_key(name).encode()) for name in (DONE, FAILED))
    except UnicodeEncodeError as error:
        raise MessageError(f"the key {shown(upload.key)} is not valid UTF-8") from error
    if longest > MAX_KEY_BYTES:
        raise MessageError(
            f"the key {shown(upload.key)} leaves no room for {FAILED} beside it: {longest} bytes, and S3 takes "
            f"{MAX_KEY_BYTES}"
        )
