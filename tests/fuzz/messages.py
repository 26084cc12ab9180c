"""Objects of uploaders and messages of the queue: READY.json, DONE.json, keys of any spelling."""

import io
import json
import logging
import random
from collections.abc import Callable
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from botocore.exceptions import ClientError

from deployments.listener.messages import Message, Messages
from deployments.listener.service import Listener
from deployments.listener.signals import MOST_CHARACTERS, SIGNAL_BYTES, Places
from deployments.listener.uploads import (
    CHOICES,
    DONE,
    FAILED,
    FOLDER,
    READY_BYTES,
    READY_FILE,
    Limits,
    Upload,
    read_event,
    read_ready,
)
from tasks.core.errors import InputError, OptionsError
from tasks.core.options import ReconstructOptions, describe_options
from tasks.core.safe_names import MAX_KEY_BYTES
from tasks.core.storage import open_s3_folder
from tests.deployments.listener.fakes import Remembering
from tests.deployments.listening import event

SUITE_ROUNDS = 300
BUCKET, RESULTS = "uploads-bucket", "s3://results-bucket/results"
PLAIN = ("flight", "Flight", "a", "a-b", "a b", "colmap", "lod", "index.html", "ä", "a\u0308", "日本", "-", "~")
ODD = (
    *(
        "",
        ".",
        "..",
        "...",
        ".zip",
        READY_FILE,
        DONE,
        FAILED,
        "C:",
        "%2F",
        "#",
        "?",
        "\\",
        "a\\b",
        "\n",
        "\0",
        "\x1b[2J",
    ),
    *("\ud800", "\uffff", "\u2028", "'", '"', "s3:", "|", "x" * 300),
)
ENDS = (f"/{READY_FILE}", ".zip", "/.zip", ".ZIP", f"/{READY_FILE}\n", ".zip\n", "", f"/{DONE}", READY_FILE)
ODD_VALUES = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        0.5,
        1e308,
        10**30,
        float("nan"),
        float("inf"),
        "",
        "x",
        "draft",
        "high",
        "\ud800",
    ),
    *("1e9", "/etc/passwd", "~/x.csv", "../x.csv", "a/b.csv", "a\nb.csv", [], [1], {}, {"steps": 1}, "y" * 2000),
)
OPTIONS = [name for name, *_ in describe_options()]
TO_CHOOSE = [f"{stage}.{name}" for stage, names in CHOICES.items() for name in sorted(names)]
VALUES = ReconstructOptions().spelled_out()
LIMITS = Limits(max_preset="standard", max_fresh_a_day=1, ask="desk@example.org")


class Buckets:
    """S3 in memory, as much of it as the listener calls."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], tuple[bytes, str]] = {}

    def put(self, key: str, content: bytes, version: str) -> None:
        self.objects[BUCKET, key] = content, version

    def head_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        return {"VersionId": self._found(Bucket, Key)[1], "ETag": '"none"'}

    def get_object(self, *, Bucket: str, Key: str) -> dict[str, Any]:
        return {"Body": io.BytesIO(self._found(Bucket, Key)[0])}

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, ContentType: str) -> None:
        assert Bucket == BUCKET
        assert Key.startswith(f"{FOLDER}/"), Key
        assert Key.endswith((DONE, FAILED)), Key
        assert ".." not in Key.split("/"), Key
        assert len(Key.encode()) <= MAX_KEY_BYTES, Key
        assert len(Body) <= SIGNAL_BYTES
        self.put(Key, Body, "ours")

    def delete_object(self, *, Bucket: str, Key: str) -> None:
        assert Key.endswith((DONE, FAILED)), Key
        del self.objects[Bucket, Key]

    def _found(self, bucket: str, key: str) -> tuple[bytes, str]:
        key.encode()  # which a real client does
        if (bucket, key) not in self.objects:
            missing: Any = {"Error": {"Code": "NoSuchKey"}, "ResponseMetadata": {"HTTPStatusCode": 404}}
            raise ClientError(missing, "GetObject")
        return self.objects[bucket, key]


class WithoutClient:
    """A session of boto3, whose real clients take longer to make than a round takes."""

    def client(self, *_: object, **__: object) -> Mock:
        return Mock()


class Queue(Messages):
    """Notes what becomes of each message."""

    def __init__(self) -> None:
        super().__init__(None, "queue", "dead")
        self.ends: list[str] = []

    def done(self, message: Message) -> None:
        self.ends.append("done")

    def give_back(self, message: Message, after_seconds: int) -> None:
        self.ends.append("given back")

    def put_aside(self, message: Message, reason: str) -> None:
        assert len(reason) < MOST_CHARACTERS, reason
        self.ends.append("put aside")


def a_key(chance: random.Random) -> str:
    parts = "/".join(chance.choice(ODD if rarely(chance) else PLAIN) for _ in range(chance.choice((1, 1, 2, 2, 3))))
    top = chance.choice(("results", "", f"{FOLDER}/")) if rarely(chance) and rarely(chance) else FOLDER
    ends = ENDS if rarely(chance) else ENDS[:2]
    return f"{top}/{parts}{chance.choice(ends)}"


def a_message(chance: random.Random, upload: Upload) -> str:
    """An event, or one with something else in one of its places, or one that was cut or changed."""
    whole = json.loads(event(upload))
    place: Any = whole
    while rarely(chance) and isinstance(place, dict) and place:
        name = chance.choice(sorted(place))
        if not isinstance(place[name], dict):
            place[name] = deepcopy(chance.choice(ODD_VALUES))
        place = place[name]
    return (
        changed(chance, json.dumps(whole).encode()).decode("utf-8", "replace") if rarely(chance) else json.dumps(whole)
    )


def a_ready(chance: random.Random) -> bytes:
    options: dict[str, Any] = {}
    for _ in range(chance.randrange(4)):
        names = [*OPTIONS, "train.nonsense", "nonsense.x"] if rarely(chance) else TO_CHOOSE
        stage, _, name = chance.choice(names).partition(".")
        usual: Any = VALUES.get(stage, {})
        value = chance.choice(ODD_VALUES) if rarely(chance) else usual.get(name)
        options.setdefault(stage, {})[name] = value * 3 if isinstance(value, int | float) and rarely(chance) else value
    fresh = chance.choice(ODD_VALUES) if rarely(chance) and rarely(chance) else chance.choice((False, False, True))
    said: dict[str, Any] = {"options": options, "fresh": fresh}
    if rarely(chance) and rarely(chance):
        said[chance.choice(("options", "destination", "photos"))] = chance.choice(ODD_VALUES)
    if rarely(chance):
        options["preset"] = chance.choice(("draft", "standard", "high", *ODD_VALUES))
    return changed(chance, json.dumps(said).encode()) if rarely(chance) else json.dumps(said).encode()


def changed(chance: random.Random, content: bytes) -> bytes:
    kind = chance.randrange(5)
    if kind == 0:
        return content[: chance.randrange(len(content) + 1)]
    if kind == 1:
        return b"[" * chance.choice((10, 10_000, 200_000)) + content
    if kind == 2:
        return content + b" " * chance.choice((1, READY_BYTES, SIGNAL_BYTES))
    damaged = bytearray(content)
    for _ in range(chance.randrange(1, 8)):
        damaged[chance.randrange(len(damaged))] = chance.randrange(256)
    return bytes(damaged)


def rarely(chance: random.Random) -> bool:
    return chance.random() < 0.25


def check_upload(upload: Upload) -> None:
    """What holds for every upload that is accepted."""
    upload.require_plain_name()
    assert "/" not in upload.place.strip("./")
    assert upload.place.isascii()
    assert Upload.of_identity(upload.identity) == upload
    photos = open_s3_folder(upload.photos, session=WithoutClient())
    assert photos.uri == upload.photos, "storage reads another capture's photos"


def check_ready(content: bytes) -> None:
    ready, refusal = None, ""
    try:
        ready = read_ready(content, LIMITS)
    except OptionsError as error:
        refusal = str(error)
    assert len(refusal) < MOST_CHARACTERS, refusal
    if ready is None:
        return
    options, chosen = ready.options, json.loads(content or b"{}")
    assert options.preset != "high"
    assert options.train.time_budget_seconds is not None
    assert options.train.time_budget_seconds <= LIMITS.max_train_minutes * 60
    for name in ("steps", "max_gaussians", "max_image_size"):
        assert getattr(options.train, name) <= getattr(LIMITS, f"max_{name}".replace("max_max_", "max_"))
    log = options.photos.flight_log
    assert not log or (not log.startswith(("/", "~")) and ".." not in log and "\\" not in log and log.isprintable())
    for stage, names in chosen.get("options", {}).items():
        assert stage == "preset" or set(names) <= CHOICES[stage]
    options.model_dump_json()


def play(chance: random.Random) -> None:
    """A queue of messages about captures whose names are alike, some of them twice, with files of any content."""
    buckets, queue, runs = Buckets(), Queue(), Remembering()
    places = Places(buckets, RESULTS, None)
    listener = Listener(queue, places, runs, BUCKET, LIMITS)
    keys = [a_key(chance) for _ in range(6)]
    sent = [
        Upload(bucket=BUCKET, key=chance.choice(keys), version=chance.choice(("1", "2", "3", "4", "a#b", "")))
        for _ in range(12)
    ]
    accepted: dict[str, Upload] = {}
    for number, upload in enumerate(chance.choices(sent, k=18)):
        content = a_ready(chance)
        check_ready(content)
        buckets.put(upload.key, content, upload.version)
        body = a_message(chance, upload)
        for name in (DONE, FAILED):
            if upload.key.startswith(f"{FOLDER}/") and rarely(chance):
                buckets.put(upload.signal_key(name), a_ready(chance), "theirs")
        listener.handle(Message(id=str(number), handle=str(number), body=body, deliveries=1))
        assert len(queue.ends) == number + 1
        assert queue.ends[-1] != "given back", "an error that was not foreseen"
        with suppress(InputError):
            read = read_event(body, BUCKET)
            check_upload(read)
            accepted[read.identity] = read
    assert len({each.place.casefold() for each in accepted.values()}) == len(accepted)
    assert len({each.tag for each in accepted.values()}) == len({each.key for each in accepted.values()})
    destinations = [run.parameters["destination"] for run in runs.made.values()]
    assert len(set(destinations)) == len(destinations)
    assert all(each.removeprefix(f"{RESULTS}/") in {one.place for one in accepted.values()} for each in destinations)


def quietly(chance: random.Random, folder: Path) -> None:
    """Nothing is written to the folder: all of it is in memory."""
    logging.disable(logging.CRITICAL)
    try:
        play(chance)
    finally:
        logging.disable(logging.NOTSET)


ROUND: Callable[[random.Random, Path], None] = quietly
