"""The whole way: uploads to the bucket of the unmodified template end as a page among the results, or as a reason.

Two hundred at once, and much else that a queue can do: tests/deployments/test_listener.py.
"""

import json

from deployments.listener.signals import Signal
from deployments.listener.uploads import DONE, FAILED, Upload
from tests.emulator.account import Emulated
from tests.emulator.captures import POISON, Landed


def test_an_upload_becomes_a_page(emulated: Emulated, landed: Landed) -> None:
    there = emulated.infrastructure
    done = Signal.model_validate_json(emulated.content(there.uploads_bucket, f"uploads/meadow/{DONE}"))
    assert done.version == landed.current
    assert done.psnr_db is not None
    assert done.psnr_db > 15, "of a small splat after half a minute"
    upload = Upload(bucket=there.uploads_bucket, key="uploads/meadow/READY.json", version=landed.current)
    result = f"results/{upload.place}"
    assert done.results == f"s3://{there.results_bucket}/{result}"
    page = emulated.content(there.results_bucket, f"{result}/index.html")
    assert b"<html" in page[:2000].lower()
    assert len(emulated.content(there.results_bucket, f"{result}/scene.sog")) > 1000
    report = json.loads(emulated.content(there.results_bucket, f"{result}/report.json"))
    assert report["train"]["resumed_from_step"] is None


def test_every_version_of_an_upload_has_one_run(emulated: Emulated, landed: Landed) -> None:
    """Though each message came twice, in another order, and one upload was replaced before anybody listened."""
    bucket = emulated.infrastructure.uploads_bucket
    uploads = [Upload.of_identity(identity) for identity in landed.identities]
    assert None not in uploads
    assert [each.key for each in uploads if each] == ["uploads/empty.zip", "uploads/meadow/READY.json"]
    assert uploads[1] == Upload(bucket=bucket, key="uploads/meadow/READY.json", version=landed.current)


def test_what_is_no_upload_is_put_aside_with_the_reason(emulated: Emulated, landed: Landed) -> None:
    assert landed.ends == {
        f"uploads/meadow/{DONE}",
        f"uploads/empty.zip.{FAILED}",
        f"uploads/wrong/{FAILED}",
    }
    wrong = [body for body in landed.rejected if "uploads/wrong/READY.json" in body]
    assert set(landed.rejected) == {POISON, *wrong}
    assert len(wrong) == 1
    assert "nonsense" in landed.rejected[wrong[0]]
    empty = emulated.content(emulated.infrastructure.uploads_bucket, f"uploads/empty.zip.{FAILED}")
    assert "photos" in (Signal.model_validate_json(empty).error or "")
