"""What a message of the queue says: which object completed which capture."""

import json
import re
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.core.errors import InputError, OptionsError
from tasks.core.options import ReconstructOptions

FOLDER = "uploads"
READY_FILE = "READY.json"
READY_BYTES = 64 * 1024  # options are some hundred bytes
_KEY = re.compile(rf"^{FOLDER}/(?P<capture>[^/].*?)(?P<end>/{READY_FILE}|\.zip)$")
_IDENTITY = re.compile(r"^s3://(?P<bucket>[^/]+)/(?P<key>.+)#(?P<version>[^#]+)$", re.DOTALL)


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
        found = _IDENTITY.match(identity or "")
        return cls(**found.groupdict()) if found and _KEY.match(found["key"]) else None

    @property
    def capture(self) -> str:
        """Its name, with slashes where the key has them."""
        found = _KEY.match(self.key)
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

    def signal_key(self, name: str) -> str:
        """The key of DONE.json or FAILED.json: in the capture's folder, or beside the archive."""
        return f"{self.key}.{name}" if self.is_archive else f"{self.key.removesuffix(READY_FILE)}{name}"


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
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MessageError(f"not an event of S3 by EventBridge ({type(error).__name__}: {error})") from error
    if kind != ("aws.s3", "Object Created"):
        raise MessageError(f"an event {kind[1]!r} of {kind[0]!r}, not 'Object Created' of 'aws.s3'")
    if there != bucket:
        raise MessageError(f"about the bucket {there}, while this listener listens for {bucket}")
    found = _KEY.match(key)
    if found is None or ".." in PurePosixPath(found["capture"]).parts:
        raise MessageError(f"the key {key!r} is neither {FOLDER}/<capture>/{READY_FILE} nor {FOLDER}/<capture>.zip")
    if not version:
        raise MessageError("the object has neither version nor ETag")
    return Upload(bucket=there, key=key, version=str(version).strip('"'))


class Ready(BaseModel):
    """What READY.json may hold; nothing at all is fine."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    options: ReconstructOptions = Field(default_factory=ReconstructOptions)
    fresh: bool = False


def read_ready(content: bytes) -> Ready:
    """Raises OptionsError with the first thing that is wrong."""
    if len(content) > READY_BYTES:
        raise OptionsError(f"{READY_FILE} has {len(content)} bytes; {READY_BYTES} are the most.")
    try:
        return Ready.model_validate_json(content) if content.strip() else Ready()
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise OptionsError(f"{READY_FILE}: {where}: {first['msg']}.") from error
