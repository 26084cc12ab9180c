"""The newest version of an upload wins, in whatever order its messages are handled."""

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed

from deployments.listener.uploads import DONE, FAILED, Limits, Ready, Upload
from tests.deployments.listener.fakes import Ended, Remembering, ended_run
from tests.deployments.listening import Account

KEY = "uploads/flight/READY.json"


class Meanwhile(Remembering):
    """A server while which a newer version is uploaded, and handled, at the worst moment."""

    def __init__(self, account: Account, moment: str) -> None:
        super().__init__()
        self.account, self.moment = account, moment
        self.newer: Upload | None = None

    def _arrives(self, moment: str) -> None:
        if moment == self.moment and self.newer is None:
            self.newer = self.account.upload(KEY)
            self.account.handle(self, self.newer)

    def start(self, upload: Upload, ready: Ready, destination: str) -> FlowRun:
        self._arrives("before the run")
        run = super().start(upload, ready, destination)
        self._arrives("after the run")
        return run

    def others(self, upload: Upload) -> list[FlowRun]:
        self._arrives("before the others are listed")
        found = super().others(upload)
        self._arrives("after the others are listed")
        return found


@pytest.mark.parametrize(
    "moment", ["before the run", "after the run", "before the others are listed", "after the others are listed"]
)
def test_the_older_run_is_cancelled_and_never_the_newer_one(account: Account, moment: str) -> None:
    runs = Meanwhile(account, moment)
    older = account.upload(KEY)
    account.handle(runs, older)
    assert runs.newer is not None
    assert set(runs.made) == {older.identity, runs.newer.identity}
    assert set(runs.cancelled) == {older.identity}


def test_a_newer_version_that_is_refused_wins_too(account: Account) -> None:
    runs = Remembering()
    older, neighbour = account.upload(KEY), account.upload("uploads/flight.zip")
    for upload in (older, neighbour):
        account.handle(runs, upload)
    wrong = account.upload(KEY, b'{"options": {"train": {"steps": 999999}}}')
    account.handle(runs, wrong)
    assert runs.cancelled == [older.identity]
    told = account.places().signal(wrong, FAILED)
    assert told is not None
    assert told.version == wrong.version
    assert "999999" in (told.error or "")
    assert "30000" in (told.error or "")
    assert "the operator of this account" in (told.error or "")


def test_a_done_of_one_version_never_links_to_anothers_page(account: Account) -> None:
    runs = Remembering()
    older = account.upload(KEY)
    account.handle(runs, older)
    newer = account.upload(KEY)
    account.handle(runs, newer)
    account.result(newer, "index.html", b"the newer one")
    account.result(older, "index.html", b"the older one, whose run was slower")
    ends = Ended([])
    ends.runs = [
        ended_run(upload, Completed(), parameters=runs.made[upload.identity].parameters) for upload in (newer, older)
    ]
    account.listener(ends).announce_ends()
    told = account.places().signal(newer, DONE)
    assert told is not None
    assert told.version == newer.version
    bucket, _, place = (told.results or "").removeprefix("s3://").partition("/")
    page = account.s3.get_object(Bucket=bucket, Key=f"{place}/index.html")["Body"].read()
    assert page == b"the newer one"


def test_captures_with_one_name_publish_to_places_that_do_not_meet(account: Account) -> None:
    runs = Remembering()
    for key in (KEY, "uploads/flight.zip", "uploads/flight/colmap/READY.json", "uploads/flight/colmap.zip"):
        account.handle(runs, account.upload(key))
    places = [run.parameters["destination"] for run in runs.made.values()]
    assert len(places) == 4
    assert not [one for one in places if sum(f"{other}/".startswith(f"{one}/") for other in places) > 1]


@pytest.mark.parametrize("key", ["uploads/a//b/READY.json", "uploads//flight.zip", "uploads/a\\b.zip"])
def test_a_name_that_cannot_be_used_is_told_beside_the_upload(account: Account, key: str) -> None:
    runs = Remembering()
    upload = account.upload(key)
    account.handle(runs, upload)
    assert runs.made == {}
    told = account.places().signal(upload, FAILED)
    assert told is not None
    assert "upload it as" in (told.error or "")


def test_computing_anew_is_limited_for_all_uploads_together(account: Account) -> None:
    runs, limits = Remembering(), Limits(max_fresh_a_day=2)
    uploads = [account.upload(f"uploads/{i}/READY.json", b'{"fresh": true}') for i in range(3)]
    for upload in (*uploads, uploads[0]):  # a message that comes again is not one more
        account.handle(runs, upload, limits)
    assert set(runs.made) == {upload.identity for upload in uploads[:2]}
    told = account.places().signal(uploads[2], FAILED)
    assert told is not None
    assert "which 2 uploads have done within a day" in (told.error or "")


def test_an_archive_is_held_to_the_limits_as_well(account: Account) -> None:
    runs, upload = Remembering(), account.upload("uploads/flight.zip")
    account.handle(runs, upload, Limits(max_archive_gib=3, max_train_minutes=5))
    options = runs.ready[upload.identity].options
    assert (options.photos.max_archive_gib, options.train.time_budget_seconds) == (3, 300)
