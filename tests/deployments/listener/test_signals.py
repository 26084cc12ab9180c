"""DONE.json and FAILED.json: of the current version alone, bounded, and put whatever else is in the buckets."""

from typing import Any

import pytest
from botocore.exceptions import ClientError
from prefect.states import Completed, Crashed, Failed, State

from deployments.listener.service import Listener
from deployments.listener.signals import SIGNAL_BYTES, Places, Signal, reason_of
from deployments.listener.uploads import DONE, FAILED, Limits, Upload
from tests.deployments.listener.fakes import Ended, Refusing, Slow, denied, ended_run
from tests.deployments.listening import Account, event


def test_files_that_are_not_ours_hold_up_nobody(account: Account) -> None:
    """A DONE.json that somebody else has put there, and a report that is none."""
    strange, good = account.upload("uploads/strange/READY.json"), account.upload("uploads/good.zip")
    account.s3.put_object(Bucket=strange.bucket, Key=strange.signal_key(DONE), Body=b"[1, 2]")
    account.result(strange, "report.json", b'{"train": 7}')
    listener, places = account.listener(Ended([strange, good])), account.places()
    listener.announce_ends()
    for upload in (strange, good):
        told = places.signal(upload, DONE)
        assert told is not None, upload.key
        assert (told.version, told.psnr_db) == (upload.version, None)
    places.forget_older(strange)  # it may meet such a file as well
    assert places.signal(strange, DONE) is not None


@pytest.mark.parametrize("first", [Failed(message="PhotosError: 2 photos."), Crashed(message="evicted")])
@pytest.mark.parametrize("restarted", [False, True])
def test_a_run_that_is_retried_ends_with_done_alone(account: Account, first: State[Any], restarted: bool) -> None:
    upload = account.upload("uploads/again.zip")
    runs, places = Ended([]), account.places()
    listener = account.listener(runs)
    failed = ended_run(upload, first)
    runs.runs = [failed]
    listener.announce_ends()
    told = places.signal(upload, FAILED)
    assert told is not None
    assert told.error == reason_of(failed, Limits().ask)
    runs.runs = [ended_run(upload, Failed(message="PhotosError: no photos."), failed.id)]
    listener.announce_ends()
    told = places.signal(upload, FAILED)
    assert told is not None
    assert told.error == "PhotosError: no photos.", "the last failure counts"
    runs.runs = [ended_run(upload, Completed(), failed.id)]
    (account.listener(runs) if restarted else listener).announce_ends()
    done = places.signal(upload, DONE)
    assert done is not None
    assert done.run == str(failed.id)
    assert places.signal(upload, FAILED) is None


def test_a_signal_that_cannot_be_put_waits_and_holds_up_no_other(
    account: Account, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("deployments.runs.Ends.__init__.__defaults__", (0.0,))
    first, second = account.upload("uploads/first.zip"), account.upload("uploads/second.zip")
    places = Refusing(account.places(), first)
    listener = Listener(account.messages(), places, Ended([first, second]), first.bucket)
    listener.announce_ends()
    assert places.signal(second, DONE) is not None
    assert places.signal(first, DONE) is None
    places.refused = None
    listener.announce_ends()
    assert places.signal(first, DONE) is not None


def test_runs_of_other_buckets_and_of_other_keys_are_left_alone(account: Account) -> None:
    """Two accounts may share a Prefect server; and a run may have any tags and any key."""
    ours = account.upload("uploads/ours.zip")
    theirs = Upload(bucket="another-account", key="uploads/theirs.zip", version="1")
    nobodys = Upload(bucket=ours.bucket, key="elsewhere/file", version="1")
    listener = account.listener(Ended([theirs, nobodys, ours]))
    listener.announce_ends()
    assert account.places().signal(ours, DONE) is not None
    assert listener._ends._waiting == {}


def test_a_rejected_upload_has_failed_alone(account: Account) -> None:
    good = account.upload("uploads/capture/READY.json")
    account.listener(Ended([good])).announce_ends()
    wrong = account.upload("uploads/capture/READY.json", b"{")
    account.send(event(wrong))
    messages = account.messages()
    (message,) = messages.take(1)
    account.listener(Slow(0, 0), messages).handle(message)
    assert account.places().signal(wrong, FAILED) is not None
    assert account.places().signal(wrong, DONE) is None


def test_a_public_link_leads_to_a_capture_of_any_name(account: Account) -> None:
    upload = account.upload("uploads/site #1 100% ä/READY.json")
    places = Places(account.s3, account.infrastructure.results, "https://results.example.org/")
    done = places.done(upload, ended_run(upload, Completed()))
    assert done.page == f"https://results.example.org/{upload.place}/index.html"
    earlier = f"{account.infrastructure.results}/site #1 100% ä"  # where runs of earlier releases have published
    done = places.done(upload, ended_run(upload, Completed(), parameters={"destination": earlier}))
    assert done.page == "https://results.example.org/site%20%231%20100%25%20%C3%A4/index.html"
    assert done.results == earlier


@pytest.mark.parametrize("elsewhere", ["s3://other/results/x", "{results}/../workspace", "{results}", "/etc", "", 7])
def test_a_link_never_leads_out_of_the_results(account: Account, elsewhere: object) -> None:
    upload, results = account.upload("uploads/flight.zip"), account.infrastructure.results
    said = elsewhere.format(results=results) if isinstance(elsewhere, str) else elsewhere
    done = account.places().done(upload, ended_run(upload, Completed(), parameters={"destination": said}))
    assert done.results == f"{results}/{upload.place}"


class Body:
    """What S3 would go on sending without an end."""

    def __init__(self) -> None:
        self.taken = 0

    def __enter__(self) -> "Body":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def read(self, count: int | None = None) -> bytes:
        assert count is not None, "whole"
        self.taken += count
        return b" " * count


class Endless:
    """S3 with objects that have no end."""

    def __init__(self) -> None:
        self.body = Body()

    def get_object(self, **_: object) -> dict[str, Any]:
        return {"Body": self.body}


def test_no_more_of_a_file_is_read_than_a_signal_has() -> None:
    upload = Upload(bucket="b", key="uploads/x.zip", version="1")
    for name in (DONE, FAILED):
        endless = Endless()
        assert Places(endless, "s3://r/results", None).signal(upload, name) is None
        assert endless.body.taken <= SIGNAL_BYTES + 1


@pytest.mark.parametrize("content", [b" " * 300_000, b"[" * 50_000, b"\xff", b"{}", b'{"version": 1}'])
def test_a_file_in_place_of_a_signal_is_replaced_once(account: Account, content: bytes) -> None:
    """Also by a listener that has been started anew, which reads all ends of a week again."""
    upload, good = account.upload("uploads/strange.zip"), account.upload("uploads/good.zip")
    account.s3.put_object(Bucket=upload.bucket, Key=upload.signal_key(DONE), Body=content)
    runs = Ended([upload, good])
    for _ in range(2):
        account.listener(runs).announce_ends()
        assert account.places().signal(upload, DONE) is not None
        assert account.places().signal(good, DONE) is not None
    versions = account.s3.list_object_versions(Bucket=upload.bucket, Prefix=upload.signal_key(DONE))["Versions"]
    assert len(versions) == 2, "the strange one and ours: nothing is put again after a restart"


def test_another_versions_signal_of_the_same_run_is_no_answer(account: Account) -> None:
    upload = account.upload("uploads/again.zip")
    run = ended_run(upload, Completed())
    account.places().announce(upload, DONE, Signal(version="older", run=str(run.id)))
    runs = Ended([])
    runs.runs = [run]
    account.listener(runs).announce_ends()
    told = account.places().signal(upload, DONE)
    assert told is not None
    assert told.version == upload.version


class Replacing(Places):
    """Buckets in which a newer version arrives while the older one's signal is put."""

    def __init__(self, account: Account) -> None:
        self.__dict__.update(account.places().__dict__)
        self.account = account

    def announce(self, upload: Upload, name: str, signal: Signal) -> None:
        self.account.upload(upload.key)
        super().announce(upload, name, signal)


@pytest.mark.parametrize("state", [Completed(), Failed(message="PhotosError: 2 photos.")])
def test_an_older_versions_end_is_not_told_after_a_newer_one_is_there(account: Account, state: State[Any]) -> None:
    older = account.upload("uploads/flight/READY.json")
    runs = Ended([])
    runs.runs = [ended_run(older, state)]
    Listener(account.messages(), Replacing(account), runs, older.bucket).announce_ends()
    assert [account.places().signal(older, name) for name in (DONE, FAILED)] == [None, None]


class WithoutListing:
    """S3 as it answers a role that may list nothing, or nothing but a prefix that it does not count here."""

    def __init__(self, s3: Any, *, may_list: bool, forbidden: str = "") -> None:
        self._s3, self._may_list, self._forbidden = s3, may_list, forbidden

    def __getattr__(self, name: str) -> Any:
        return getattr(self._s3, name)

    def _answer(self, operation: str, **named: str) -> Any:
        try:
            if named["Key"] == self._forbidden:
                raise denied(operation)
            return getattr(self._s3, operation)(**named)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                raise denied(operation) from error
            raise

    def get_object(self, **named: str) -> Any:
        return self._answer("get_object", **named)

    def head_object(self, **named: str) -> Any:
        return self._answer("head_object", **named)

    def list_objects_v2(self, **named: Any) -> Any:
        if not self._may_list:
            raise denied("list_objects_v2")
        return self._s3.list_objects_v2(**named)


def test_a_missing_object_is_told_from_a_refusal_where_s3_answers_403_to_both(account: Account) -> None:
    upload = account.upload("uploads/there.zip")
    account.upload("uploads/gone.zip.later")  # begins like the missing one
    gone = upload.model_copy(update={"key": "uploads/gone.zip"})
    places = Places(WithoutListing(account.s3, may_list=True), account.infrastructure.results, None)
    assert places.is_current(upload)
    assert not places.is_current(gone)
    assert places.signal(upload, DONE) is None
    refused = Places(
        WithoutListing(account.s3, may_list=True, forbidden=upload.key), account.infrastructure.results, None
    )
    with pytest.raises(ClientError):
        refused.is_current(upload)
    nothing_known = Places(WithoutListing(account.s3, may_list=False), account.infrastructure.results, None)
    with pytest.raises(ClientError):
        nothing_known.is_current(gone)


def test_a_report_that_may_not_be_read_is_left_out_of_what_is_told(account: Account) -> None:
    upload = account.upload("uploads/flight.zip")
    report = f"results/{upload.place}/report.json"
    account.result(upload, "report.json", b'{"train": {"psnr_db": 30}}')
    s3 = WithoutListing(account.s3, may_list=True, forbidden=report)
    places = Places(s3, account.infrastructure.results, None)
    Listener(account.messages(), places, Ended([upload]), upload.bucket).announce_ends()
    told = account.places().signal(upload, DONE)
    assert told is not None
    assert (told.version, told.psnr_db) == (upload.version, None)
    assert told.page
