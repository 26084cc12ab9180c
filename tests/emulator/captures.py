"""Uploads: a flight twice, an archive without photos, options that are wrong; and messages of no use."""

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.listener.uploads import DONE, FAILED
from tasks.core.demo.flight import fly
from tasks.core.demo.flight_plan import DemoOptions
from tasks.core.progress import ignore_progress
from tests.emulator.account import Emulated
from tests.emulator.listener import listening
from tests.support.local_server import Served
from tests.support.patience import eventually

PHOTOS = 14
TRAIN = {"steps": 1500, "max_gaussians": 3000, "max_image_size": 160, "early_stop": False}
POISON = "no json"


@dataclass(frozen=True)
class Landed:
    """What came of the uploads."""

    ends: set[str]  # keys of the signals beside them
    rejected: dict[str, str]  # body -> reason, of the dead letters
    identities: list[str]  # of the runs, as the listener names them
    current: str  # ETag of the capture's READY.json: what ministack's events have for a version


def land(emulated: Emulated, server: Served, folder: Path) -> Landed:
    """Upload, and listen until each upload has its end."""
    s3, bucket = emulated.client("s3"), emulated.infrastructure.uploads_bucket
    flight = folder / "flight"
    fly(flight, DemoOptions(photos=PHOTOS, width=640, height=480), ignore_progress)
    photos = sorted(path for path in flight.iterdir() if path.suffix.lower() == ".jpg")
    assert len(photos) == PHOTOS
    for photo in photos:
        s3.upload_file(str(photo), bucket, f"uploads/meadow/{photo.name}")
    empty = folder / "no photos.zip"
    with zipfile.ZipFile(empty, "w") as archive:
        archive.writestr("readme.txt", "nothing to see")
    s3.upload_file(str(empty), bucket, "uploads/empty.zip")

    def ready(capture: str, options: dict[str, Any]) -> str:
        body = json.dumps({"options": options}).encode()
        return str(s3.put_object(Bucket=bucket, Key=f"uploads/{capture}/READY.json", Body=body)["ETag"]).strip('"')

    ready("meadow", {"preset": "standard"})  # which somebody thinks better of
    current = ready("meadow", {"preset": "draft", "train": TRAIN})
    ready("wrong", {"nonsense": 1})
    _disturb(emulated)
    ends = {f"uploads/{name}" for name in ("meadow/" + DONE, "empty.zip." + FAILED, "wrong/" + FAILED)}

    def signals() -> set[str]:
        return {key for key in emulated.keys(bucket, "uploads/") if key.endswith((DONE, FAILED))}

    with listening(emulated, server), server.client() as prefect:
        eventually(lambda: len(signals()) >= len(ends), "ends of three uploads", lambda: server.moves(prefect))
        eventually(lambda: _waiting(emulated) == 0, "empty queue", lambda: _waiting(emulated))
    failed = f"uploads/meadow/{FAILED}"
    assert failed not in signals(), emulated.content(bucket, failed).decode() + server.log("worker-cpu")[-3000:]
    with server.client() as prefect:
        identities = sorted(run.idempotency_key or "" for run in prefect.read_flow_runs() if not run.parent_task_run_id)
    return Landed(signals(), _dead_letters(emulated), identities, current)


def _disturb(emulated: Emulated) -> None:
    """Every message once more, the last one first, and one that is none."""
    sqs, url = emulated.client("sqs"), emulated.infrastructure.queue_url
    taken: list[dict[str, str]] = []

    def all_there() -> bool:
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=60, WaitTimeSeconds=1)
        taken.extend(answer.get("Messages", []))
        return len(taken) == 4

    eventually(all_there, "messages of three READY.json and of an archive, and none of photos", lambda: len(taken))
    for body in [POISON] + [each["Body"] for each in reversed(taken)]:
        sqs.send_message(QueueUrl=url, MessageBody=body)
    for each in taken:
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=each["ReceiptHandle"], VisibilityTimeout=0)


def _waiting(emulated: Emulated) -> int:
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    answer = emulated.client("sqs").get_queue_attributes(
        QueueUrl=emulated.infrastructure.queue_url, AttributeNames=names
    )
    return sum(int(value) for value in answer["Attributes"].values())


def _dead_letters(emulated: Emulated) -> dict[str, str]:
    found = {}
    sqs, url = emulated.client("sqs"), emulated.infrastructure.dead_letters_url
    while messages := sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"], WaitTimeSeconds=0
    ).get("Messages", []):
        found |= {each["Body"]: each["MessageAttributes"]["reason"]["StringValue"] for each in messages}
    return found
