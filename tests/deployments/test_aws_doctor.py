"""`spaceport doctor --aws` against moto: what is well, and for what is not, the way out."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from deployments.aws.runtime import doctor as aws_doctor
from deployments.aws.runtime.doctor import examine_account
from deployments.aws.runtime.infrastructure import PARAMETER
from deployments.findings import Finding
from flows.cli.app import app
from tests.deployments.accounts import REGISTRY, account
from tests.deployments.listening import new_account
from tests.support.aws_server import AwsServer, aws_server


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[AwsServer]:
    for name in ("AWS_PROFILE", "AWS_REGION"):
        monkeypatch.delenv(name, raising=False)
    with aws_server() as server:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server


def found(part: str) -> Finding:
    findings = {finding.part: finding for finding in examine_account()}
    return findings[part]


def deploy(aws: AwsServer, **changed: object) -> None:
    """What the stacks leave behind, as far as the doctor looks."""
    made = new_account(aws, "spaceport").infrastructure.model_dump() | changed
    aws.client("ssm").put_parameter(Name=PARAMETER, Value=json.dumps(made), Type="String", Overwrite=True)
    aws.client("s3").put_bucket_versioning(Bucket="spaceport-results", VersioningConfiguration={"Status": "Enabled"})


def test_an_empty_account_is_told_to_deploy(aws: AwsServer) -> None:
    stacks = found("stacks")
    assert not stacks.ok
    assert PARAMETER in stacks.says
    assert "deploy" in stacks.fix
    assert found("identity").ok


def test_without_credentials_there_is_one_finding(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    (finding,) = examine_account()
    assert (finding.part, finding.ok) == ("identity", False)
    assert "aws configure" in finding.fix


def test_what_was_deployed_is_well(aws: AwsServer) -> None:
    deploy(aws)
    findings = {finding.part: finding for finding in examine_account()}
    for part in ("region", "stacks", "bucket, uploads", "bucket, results", "queue", "dead letters"):
        assert findings[part].ok, findings[part]
    for part in ("image, cpu", "service, worker", "cluster"):  # nobody has pushed or started anything
        assert not findings[part].ok
        assert findings[part].fix


def test_dead_letters_say_how_to_read_them(aws: AwsServer) -> None:
    deploy(aws)
    url = found_account(aws)["dead_letters_url"]
    aws.client("sqs").send_message(QueueUrl=url, MessageBody="poison")
    letters = found("dead letters")
    assert (letters.ok, letters.says) == (False, "1 messages")
    assert url in letters.fix


def found_account(aws: AwsServer) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(aws.client("ssm").get_parameter(Name=PARAMETER)["Parameter"]["Value"])
    return value


@pytest.mark.parametrize("image", [f"{REGISTRY}/gpu:0.1.0", f"{REGISTRY}/gpu@{{digest}}"])
def test_an_image_is_found_by_tag_and_by_digest(aws: AwsServer, image: str) -> None:
    aws.client("ecr").create_repository(repositoryName="spaceport/gpu")
    manifest = {"schemaVersion": 2, "mediaType": "application/vnd.docker.distribution.manifest.v2+json", "layers": []}
    pushed = aws.client("ecr").put_image(
        repositoryName="spaceport/gpu", imageManifest=json.dumps(manifest), imageTag="0.1.0"
    )
    digest = pushed["image"]["imageId"]["imageDigest"]
    deploy(aws, gpu_image=image.format(digest=digest))
    finding = found("image, gpu")
    assert finding.ok, finding
    assert digest[:19] in finding.says


@pytest.mark.parametrize(("vcpus", "ok"), [(0.0, False), (3.0, False), (4.0, True)])
def test_a_quota_below_one_instance_says_what_to_ask_for(
    vcpus: float, ok: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Quotas:
        def get_service_quota(self, **_: str) -> dict[str, Any]:
            return {"Quota": {"Value": vcpus}}

    monkeypatch.setattr(aws_doctor, "_client", lambda _: Quotas())
    finding = aws_doctor._quota("GPU quota, spot", *aws_doctor.QUOTAS["GPU quota, spot"])
    assert finding.ok is ok
    assert "All G and VT Spot Instance Requests" in finding.fix


@pytest.mark.parametrize(("answer", "ok"), [({"EventBridgeConfiguration": {}}, True), ({}, False)])
def test_a_bucket_that_tells_nobody_is_found(answer: dict[str, Any], ok: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """moto forgets this part of a bucket, which is empty in AWS's answer."""

    class Bucket:
        def get_bucket_notification_configuration(self, **_: str) -> dict[str, Any]:
            return answer

    monkeypatch.setattr(aws_doctor, "_client", lambda _: Bucket())
    assert aws_doctor._events("uploads")[0] is ok


def test_a_refusal_names_the_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    class Closed:
        def get_service_quota(self, **_: str) -> None:
            raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "GetServiceQuota")

    monkeypatch.setattr(aws_doctor, "_client", lambda _: Closed())
    finding = aws_doctor._quota("GPU quota, spot", *aws_doctor.QUOTAS["GPU quota, spot"])
    assert "servicequotas:GetServiceQuota" in finding.fix


def test_the_command_ends_with_status_1_when_something_is_missing(aws: AwsServer) -> None:
    result = CliRunner().invoke(app, ["doctor", "--aws"])
    assert result.exit_code == 1
    assert "stacks" in result.output
    assert account().region in result.output
