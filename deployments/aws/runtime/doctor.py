"""`spaceport doctor --aws`: checks that an account has what runs need. Read-only and free of charge."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from deployments.aws.runtime.infrastructure import Infrastructure, read_infrastructure
from deployments.aws.runtime.jobs import GPU_INSTANCE
from deployments.findings import Finding
from tasks.core.errors import InputError

GPU_VCPUS = 4  # of a g4dn.xlarge
# https://docs.aws.amazon.com/ec2/latest/instancetypes/ec2-instance-quotas.html
QUOTAS = {
    "GPU quota, on demand": ("L-DB2E81BA", "Running On-Demand G and VT instances"),
    "GPU quota, spot": ("L-3819A6DF", "All G and VT Spot Instance Requests"),
}
DEPLOY = "npx aws-cdk@2 deploy --all, in deployments/aws"
_CONFIG = Config(connect_timeout=5, read_timeout=20, retries={"mode": "standard", "total_max_attempts": 2})

Says = tuple[bool, str, str]  # ok, the answer, the fix


def examine_account() -> list[Finding]:
    """Check everything; without credentials or stacks, few checks are possible."""
    findings = [_ask("identity", "sts:GetCallerIdentity", _identity, "aws configure sso, or another AWS_PROFILE")]
    if not findings[0].ok:
        return findings
    region = boto3.Session().region_name
    findings.append(Finding("region", region is not None, region or "none is chosen", "Set AWS_DEFAULT_REGION."))
    if region is None:
        return findings
    findings += [_quota(part, code, name) for part, (code, name) in QUOTAS.items()]
    try:
        account = read_infrastructure()
    except InputError as error:
        return [*findings, Finding("stacks", False, str(error), DEPLOY)]
    findings.append(Finding("stacks", True, f"cluster {account.cluster.rpartition('/')[2]}"))
    return [*findings, *_parts(account)]


def _parts(account: Infrastructure) -> Iterator[Finding]:
    for use, bucket in (("uploads", account.uploads_bucket), ("results", account.results_bucket)):
        yield _ask(f"bucket, {use}", "s3:ListBucket, s3:GetBucketVersioning", partial(_bucket, bucket), DEPLOY)
    yield _ask(
        "upload events",
        "s3:GetBucketNotification",
        partial(_events, account.uploads_bucket),
        DEPLOY,
    )
    yield _ask("queue", "sqs:GetQueueAttributes", partial(_queue, account.queue_url), DEPLOY)
    yield _ask("dead letters", "sqs:GetQueueAttributes", partial(_dead_letters, account.dead_letters_url), DEPLOY)
    for kind, image in (("cpu", account.cpu_image), ("gpu", account.gpu_image)):
        yield _ask(f"image, {kind}", "ecr:DescribeImages", partial(_image, image), "make aws-images")
    yield _ask("cluster", "ecs:DescribeClusters", partial(_cluster, account), DEPLOY)
    for service in ("worker", "listener"):
        yield _ask(
            f"service, {service}",
            "ecs:DescribeServices",
            partial(_service, account.cluster, f"spaceport-{service}"),
            f"Its log group is /spaceport/services; then {DEPLOY}",
        )


def _ask(part: str, action: str, question: Callable[[], Says], fix: str) -> Finding:
    """Turn an answer into a finding; if AWS refuses it, name the missing permission."""
    try:
        ok, says, remedy = question()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ("AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"):
            return Finding(
                part, False, f"not allowed to look ({code})", f"Allow {action} to the role or user that asks."
            )
        return Finding(part, False, f"{code}: {error.response['Error'].get('Message', '')}", fix)
    except BotoCoreError as error:
        return Finding(part, False, str(error), fix)
    return Finding(part, ok, says, remedy or fix)


def _client(service: str) -> Any:
    return boto3.client(service, config=_CONFIG)


def _identity() -> Says:
    return True, _client("sts").get_caller_identity()["Arn"], ""


def _quota(part: str, code: str, name: str) -> Finding:
    def question() -> Says:
        value = _client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=code)["Quota"]["Value"]
        says = f"{value:.0f} vCPUs, a {GPU_INSTANCE} has {GPU_VCPUS}"
        return value >= GPU_VCPUS, says, f"Ask for {GPU_VCPUS} or more of “{name}” in Service Quotas; it takes a day."

    return _ask(part, "servicequotas:GetServiceQuota", question, f"Look at “{name}” in Service Quotas.")


def _bucket(name: str) -> Says:
    s3 = _client("s3")
    s3.head_bucket(Bucket=name)
    versioned = s3.get_bucket_versioning(Bucket=name).get("Status") == "Enabled"
    return versioned, f"{name}, {'versioned' if versioned else 'without versions'}", ""


def _events(bucket: str) -> Says:
    told = "EventBridgeConfiguration" in _client("s3").get_bucket_notification_configuration(Bucket=bucket)
    return told, "EventBridge receives events" if told else "EventBridge receives no events of uploads", ""


def _queue(url: str) -> Says:
    count = _messages(url)
    return True, f"{count} waiting", ""


def _dead_letters(url: str) -> Says:
    count = _messages(url)
    fix = f"aws sqs receive-message --message-attribute-names reason --queue-url {url}: each says why."
    return count == 0, f"{count} messages", fix


def _messages(url: str) -> int:
    name = "ApproximateNumberOfMessages"
    return int(_client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=[name])["Attributes"][name])


def _image(image: str) -> Says:
    repository = image.partition("/")[2]
    name, at, digest = repository.partition("@")
    wanted = {"imageDigest": digest} if at else {"imageTag": repository.rpartition(":")[2]}
    name = name if at else repository.rpartition(":")[0]
    found = _client("ecr").describe_images(repositoryName=name, imageIds=[wanted])["imageDetails"][0]
    return True, f"{found['imageDigest'][:19]}… of {found['imagePushedAt']:%Y-%m-%d}", ""


def _cluster(account: Infrastructure) -> Says:
    found = _client("ecs").describe_clusters(clusters=[account.cluster])["clusters"]
    if not found or found[0]["status"] != "ACTIVE":
        return False, "not there", ""
    wanted = {account.capacity_provider, account.capacity_provider_again}
    missing = wanted - set(found[0].get("capacityProviders", []))
    return not missing, f"without capacity provider {', '.join(sorted(missing))}" if missing else "active", ""


def _service(cluster: str, name: str) -> Says:
    found = _client("ecs").describe_services(cluster=cluster, services=[name])["services"]
    if not found:
        return False, f"{name} is not there", ""
    running, desired = found[0]["runningCount"], found[0]["desiredCount"]
    return running >= max(desired, 1), f"{running} of {desired} running", ""
