"""Workspaces by their names, blocks included."""

from pathlib import Path

import pytest
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from tasks.core.errors import DestinationError, OptionsError, StorageError
from tasks.core.storage import LocalWorkspace, S3Workspace
from tasks.places.workspace import open_folder, open_workspace
from tasks.running.settings import Settings
from tests.support.s3_server import ACCESS_KEY, REGION, SECRET_KEY, S3Server


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACEPORT_HOME", str(tmp_path / "home"))


def test_a_workspace_is_opened_once(tmp_path: Path, s3_environment: S3Server) -> None:
    for name in (str(tmp_path), f"s3://{s3_environment.new_bucket()}/field"):
        assert open_workspace(name) is open_workspace(name)


def test_links_to_run_files_need_a_pages_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_workspace(str(tmp_path)).run_file_url("flight-1", "splat/index.html") is None
    monkeypatch.setenv("SPACEPORT_PAGES_URL", "http://127.0.0.1:9/")
    workspace = open_workspace(str(tmp_path))
    assert workspace.run_file_url("flight-1", "a b.html") == "http://127.0.0.1:9/flight-1/a%20b.html"
    assert isinstance(workspace, LocalWorkspace)
    assert workspace.page_url(tmp_path / "runs" / "flight-1" / "x") == "http://127.0.0.1:9/flight-1/x"
    assert workspace.page_url(tmp_path / "elsewhere") is None


def test_a_workspace_named_by_blocks(prefect_server: None, s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """The keys come from the block here, and from nowhere else."""
    for name in s3.environment:
        monkeypatch.delenv(name, raising=False)
    credentials = AwsCredentials(
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SecretStr(SECRET_KEY),
        region_name=REGION,
        aws_client_parameters=AwsClientParameters(endpoint_url=s3.endpoint),
    )
    credentials.save("field-keys")
    bucket = s3.new_bucket()
    S3Bucket(bucket_name=bucket, bucket_folder="a/b/", credentials=AwsCredentials.load("field-keys")).save("field")
    workspace = open_workspace("s3-bucket/field")
    assert isinstance(workspace, S3Workspace)
    workspace.write_run_file("flight-1", "note.txt", b"here")
    assert s3.client().get_object(Bucket=bucket, Key="a/b/runs/flight-1/note.txt")["Body"].read() == b"here"
    # A place in the same bucket is reached with the same keys, though its name is a plain URI.
    assert [found.name for found in open_folder(workspace.run_uri("flight-1"), workspace).objects()] == ["note.txt"]


def test_blocks_without_keys_leave_the_choice_to_the_machine(prefect_server: None, s3_environment: S3Server) -> None:
    bucket = s3_environment.new_bucket()
    S3Bucket(bucket_name=bucket, credentials=AwsCredentials()).save("roles-only")
    workspace = open_workspace("s3-bucket/roles-only")
    workspace.write_run_file("flight-1", "note.txt", b"here")
    assert workspace.run_uri("flight-1") == f"s3://{bucket}/runs/flight-1"
    assert workspace.read_run_file("flight-1", "note.txt") == b"here"


def test_a_block_that_is_not_there_is_refused(prefect_server: None) -> None:
    with pytest.raises(DestinationError, match=r"There is no block s3-bucket/nowhere .* create one"):
        open_workspace("s3-bucket/nowhere")


def test_other_places_are_refused(tmp_path: Path, s3_environment: S3Server) -> None:
    with pytest.raises(DestinationError, match=r"write s3://bucket/folder"):
        open_workspace("gs://bucket/x")
    missing = open_workspace("s3://no-such-bucket-here/x")
    with (
        pytest.raises(DestinationError, match="There is no bucket for s3://no-such-bucket-here/x"),
        missing.new_output("train", "k"),
    ):
        pass
    with pytest.raises(DestinationError, match="There is no bucket"):
        missing.find("train", "k")


def test_a_server_that_is_away_may_come_back(s3_environment: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # nobody listens at the discard port
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageError, match="cannot be reached") as caught:
        open_workspace("s3://away/x").find("train", "k")
    assert caught.value.retryable


def test_the_bound_of_local_copies_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().cache_bytes == 20 * 10**9
    monkeypatch.setenv("SPACEPORT_CACHE_GB", "0.5")
    assert Settings().cache_bytes == 5 * 10**8
    for wrong in ("much", "-1", "nan"):
        monkeypatch.setenv("SPACEPORT_CACHE_GB", wrong)
        with pytest.raises(OptionsError, match="set it to a number of gigabytes"):
            Settings()
