"""Promises of the synthesized templates. cdk-nag has checked them already: synthesis fails on its findings."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from deployments.aws.runtime.infrastructure import Infrastructure
from deployments.aws.stacks.data import READY_KEYS
from deployments.aws.stacks.monitoring import NAMESPACE
from deployments.aws.stacks.options import AwsOptions
from deployments.local.server_settings import retention
from tasks.core.errors import OptionsError
from tests.deployments.aws.conftest import Templates
from tests.support.patience import finished

BUCKET, QUEUE = "AWS::S3::Bucket", "AWS::SQS::Queue"


def test_cfn_lint_finds_nothing(templates: Templates, other_templates: Templates) -> None:
    paths = [*templates.paths(), *other_templates.paths()]
    assert len(paths) == 6 + 5
    command = [Path(sys.executable).with_name("cfn-lint"), "--", *paths]
    done = finished(command)
    assert done.returncode == 0, done.stdout + done.stderr


def test_no_function_and_no_custom_resource_slips_in(templates: Templates, other_templates: Templates) -> None:
    """CDK adds Lambda functions with wide roles for some switches; here nothing needs one."""
    kinds = {each["Type"] for each in {**templates.resources(""), **other_templates.resources("")}.values()}
    assert not {kind for kind in kinds if kind.startswith(("AWS::Lambda", "Custom::", "AWS::CloudFormation::Custom"))}


def test_buckets_are_encrypted_versioned_closed_and_tls_only(templates: Templates) -> None:
    buckets = templates.resources(BUCKET)
    assert len(buckets) == 3
    policies = templates.properties("AWS::S3::BucketPolicy")
    for name, resource in buckets.items():
        bucket = resource["Properties"]
        assert resource["DeletionPolicy"] == "Retain"
        assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
        assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
        rule = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"][0]
        assert rule["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
        policy = next(each for each in policies if each["Bucket"] == {"Ref": name.split("/")[1]})
        assert denies_plain_http(policy["PolicyDocument"])


def test_queues_are_encrypted_tls_only_and_have_dead_letters(templates: Templates) -> None:
    queues = templates.resources(QUEUE)
    policies = templates.properties("AWS::SQS::QueuePolicy")
    for name, resource in queues.items():
        assert resource["Properties"]["SqsManagedSseEnabled"] is True
        reference = {"Ref": name.split("/")[1]}
        policy = next(each for each in policies if reference in each["Queues"])
        assert denies_plain_http(policy["PolicyDocument"])
    dead = [each["Properties"]["RedrivePolicy"] for each in queues.values() if "RedrivePolicy" in each["Properties"]]
    assert sorted(each["maxReceiveCount"] for each in dead) == [3, 5]
    assert len(queues) == 2 * len(dead)


def denies_plain_http(document: dict[str, Any]) -> bool:
    return any(
        statement["Effect"] == "Deny" and statement["Condition"].get("Bool") == {"aws:SecureTransport": "false"}
        for statement in document["Statement"]
    )


def test_nothing_expires_that_a_cached_result_may_point_to(templates: Templates) -> None:
    """Current objects expire below checkpoints/ and among the access logs, and nowhere else."""
    expiring = {
        (name.split("/")[1][:7], rule.get("Prefix"))
        for name, resource in templates.resources(BUCKET).items()
        for rule in resource["Properties"]["LifecycleConfiguration"]["Rules"]
        if "ExpirationInDays" in rule or "ExpirationDate" in rule
    }
    assert {(name, prefix) for name, prefix in expiring if name != "AccessL"} == {("Results", "workspace/checkpoints/")}
    for resource in templates.properties(BUCKET):
        aborts = [rule.get("AbortIncompleteMultipartUpload") for rule in resource["LifecycleConfiguration"]["Rules"]]
        assert {"DaysAfterInitiation": 1} in aborts


def test_only_what_completes_a_capture_reaches_the_queue(templates: Templates) -> None:
    uploads = templates.stack("Data")["Resources"]
    bucket = next(each for name, each in uploads.items() if name.startswith("Uploads") and each["Type"] == BUCKET)
    configuration = bucket["Properties"]["NotificationConfiguration"]
    assert configuration == {"EventBridgeConfiguration": {"EventBridgeEnabled": True}}
    rule = next(each["Properties"] for each in uploads.values() if each["Type"] == "AWS::Events::Rule")
    assert rule["EventPattern"]["detail"]["object"]["key"] == [{"wildcard": key} for key in READY_KEYS]
    assert "DeadLetterConfig" in rule["Targets"][0]


def test_gpu_instances_scale_from_none_and_are_hardened(templates: Templates, other_templates: Templates) -> None:
    groups = templates.properties("AWS::AutoScaling::AutoScalingGroup")
    assert [group["MinSize"] for group in groups] == ["0"] * 4
    assert all("DesiredCapacity" not in group for group in groups), "a deployment would stop what computes"
    assert all(group["NewInstancesProtectedFromScaleIn"] for group in groups)
    for template in templates.properties("AWS::EC2::LaunchTemplate"):
        data = template["LaunchTemplateData"]
        assert data["InstanceInitiatedShutdownBehavior"] == "terminate", "one that fails at boot ends itself"
        assert data["MetadataOptions"]["HttpTokens"] == "required"
        assert [disk["Ebs"]["Encrypted"] for disk in data["BlockDeviceMappings"]] == [True]
        assert "amazonlinux2023gpu" in data["ImageId"]["Ref"]
    on_demand = [on_demand_percent(group) for group in groups]
    assert on_demand == [0, 100, 0, 100], "spot first in either pool, and a group on demand for when there is none"
    named = {group.get("AutoScalingGroupName"): on_demand_percent(group) for group in groups}
    assert (named["spaceport-ec2-gpu"], named["spaceport-ec2-gpu-on-demand"]) == (0, 100)
    others = other_templates.properties("AWS::AutoScaling::AutoScalingGroup")
    assert [on_demand_percent(group) for group in others] == [100, 100, 100]


def test_the_scaler_may_ask_both_groups_and_instances_of_both_may_end_themselves(templates: Templates) -> None:
    for role, action in (
        ("WorkerRole", "autoscaling:SetDesiredCapacity"),
        ("WorkerRole", "autoscaling:TerminateInstanceInAutoScalingGroup"),
        ("Ec2WorkerRole", "autoscaling:TerminateInstanceInAutoScalingGroup"),
    ):
        statement = next(each for each in statements_of(templates, role) if action in each["Action"])
        ends = [json.dumps(each).rpartition("/")[2].strip('"]}') for each in statement["Resource"]]
        assert ends == ["spaceport-ec2-gpu", "spaceport-ec2-gpu-on-demand"], role


def statements_of(templates: Templates, role: str) -> list[dict[str, Any]]:
    """The statements of a role's policy."""
    policy = next(
        each["Properties"]["PolicyDocument"]
        for name, each in templates.resources("AWS::IAM::Policy").items()
        if name.split("/")[1].startswith(role)
    )
    statements: list[dict[str, Any]] = policy["Statement"]
    return statements


def on_demand_percent(group: dict[str, Any]) -> int:
    return int(group["MixedInstancesPolicy"]["InstancesDistribution"]["OnDemandPercentageAboveBaseCapacity"])


def test_capacity_providers_scale_and_drain(templates: Templates) -> None:
    providers = templates.properties("AWS::ECS::CapacityProvider")
    assert len(providers) == 2
    for provider in providers:
        group = provider["AutoScalingGroupProvider"]
        assert group["ManagedDraining"] == group["ManagedTerminationProtection"] == "ENABLED"
        assert group["ManagedScaling"]["Status"] == "ENABLED"
        assert group["ManagedScaling"]["TargetCapacity"] == 100, "none is kept waiting"
    agents = [each for each in templates.properties("AWS::EC2::LaunchTemplate") if "ECS_CLUSTER=" in json.dumps(each)]
    assert len(agents) == 2
    assert all("ECS_ENABLE_SPOT_INSTANCE_DRAINING=true" in json.dumps(agent) for agent in agents)


def test_nobody_is_let_in_from_outside(templates: Templates, other_templates: Templates) -> None:
    for each in (templates, other_templates):
        ingress = each.properties("AWS::EC2::SecurityGroupIngress")
        ingress += [
            rule
            for group in each.properties("AWS::EC2::SecurityGroup")
            for rule in group.get("SecurityGroupIngress", [])
        ]
        assert all("SourceSecurityGroupId" in rule and "CidrIp" not in rule for rule in ingress)
    assert not templates.properties("AWS::EC2::NatGateway")
    assert len(other_templates.properties("AWS::EC2::NatGateway")) == 1


def test_every_wildcard_has_a_reason(templates: Templates) -> None:
    """No action has one; a whole service is named only for actions that know no resources, or within this cluster."""
    for name, resource in templates.resources("AWS::IAM::Policy").items():
        for statement in resource["Properties"]["PolicyDocument"]["Statement"]:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            assert not [action for action in actions if "*" in action], name
            if statement["Resource"] == "*" and "Condition" not in statement:
                assert set(actions) <= KNOW_NO_RESOURCES, f"{name}: {actions}"
    for name, role in templates.resources("AWS::IAM::Role").items():
        assert "ManagedPolicyArns" not in role["Properties"], f"{name} takes a policy that AWS writes"


# https://docs.aws.amazon.com/service-authorization/latest/reference/
KNOW_NO_RESOURCES = {
    "ecr:GetAuthorizationToken",
    "ecs:DiscoverPollEndpoint",
    "ecs:RegisterTaskDefinition",
    "ecs:DeregisterTaskDefinition",
    "ecs:DescribeTaskDefinition",
    "autoscaling:DescribeAutoScalingGroups",
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
}


def test_training_cannot_touch_uploads_or_results(templates: Templates) -> None:
    policy = next(each for name, each in templates.resources("AWS::IAM::Policy").items() if "TrainRole" in name)
    text = json.dumps(policy["Properties"]["PolicyDocument"])
    assert "/workspace/*" in text
    assert "uploads" not in text
    assert "/results/" not in text


@pytest.mark.parametrize(("bucket", "prefix"), [("uploads", "uploads/*"), ("results", "results/*")])
def test_the_listener_can_tell_a_missing_object_from_a_refusal(templates: Templates, bucket: str, prefix: str) -> None:
    """To those who may not list, S3 answers 403 to both: tasks/core/storage/s3_errors.py."""
    listings = [each for each in statements_of(templates, "ListenerRole") if each["Action"] == "s3:ListBucket"]
    (listing,) = [each for each in listings if f"-{bucket}-" in json.dumps(each["Resource"])]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": [prefix]}}


def test_the_listener_is_told_what_uploads_may_ask_for(templates: Templates) -> None:
    tasks = {each["Family"]: each["ContainerDefinitions"] for each in templates.properties("AWS::ECS::TaskDefinition")}
    (listener,) = tasks["spaceport-listener"]
    assert {"Name": "SPACEPORT_UPLOAD_LIMITS", "Value": "{}"} in listener["Environment"]


def test_every_alarm_reaches_somebody(templates: Templates) -> None:
    alarms = templates.properties("AWS::CloudWatch::Alarm")
    assert len(alarms) == 11
    for alarm in alarms:
        assert len(alarm["AlarmActions"]) == 1
        assert alarm["AlarmDescription"]
    topic = templates.properties("AWS::SNS::Topic")[0]
    assert "KmsMasterKeyId" in topic
    assert [each["Endpoint"] for each in templates.properties("AWS::SNS::Subscription")] == ["somebody@example.org"]
    budget = templates.properties("AWS::Budgets::Budget")[0]
    kinds = [each["Notification"]["NotificationType"] for each in budget["NotificationsWithSubscribers"]]
    assert kinds == ["ACTUAL", "FORECASTED"]


def test_the_dashboard_shows_what_was_asked_for(templates: Templates) -> None:
    body = json.dumps(templates.properties("AWS::CloudWatch::Dashboard")[0])
    for metric in ("RunsCompleted", "Seconds", "PsnrDb", "GpuUtilisation", "ApproximateAgeOfOldestMessage", "CostUsd"):
        assert metric in body
    assert NAMESPACE in body


def test_logs_end_after_a_while(templates: Templates) -> None:
    groups = templates.properties("AWS::Logs::LogGroup")
    assert len(groups) == 4
    assert {group["RetentionInDays"] for group in groups} == {30}


def test_the_server_is_behind_a_password_and_its_database_behind_the_server(templates: Templates) -> None:
    database = templates.properties("AWS::RDS::DBInstance")[0]
    assert database["PubliclyAccessible"] is False
    assert database["StorageEncrypted"] is database["DeletionProtection"] is True
    assert templates.properties("AWS::RDS::DBParameterGroup")[0]["Parameters"] == {"rds.force_ssl": "1"}
    tasks = {each["Family"]: each["ContainerDefinitions"] for each in templates.properties("AWS::ECS::TaskDefinition")}
    secrets = {secret["Name"] for secret in tasks["spaceport-server"][0]["Secrets"]}
    assert secrets == {"PREFECT_SERVER_API_AUTH_STRING", "PREFECT_SERVER_DATABASE_PASSWORD"}


def test_the_server_forgets_what_is_old(templates: Templates) -> None:
    tasks = {each["Family"]: each["ContainerDefinitions"] for each in templates.properties("AWS::ECS::TaskDefinition")}
    environment = tasks["spaceport-server"][0]["Environment"]
    for name, value in retention(30).items():
        assert {"Name": name, "Value": value} in environment
    assert AwsOptions.from_context({"keep_days": "90"}.get).keep_days == 90


def test_workers_wait_for_the_set_up(templates: Templates) -> None:
    tasks = {each["Family"]: each["ContainerDefinitions"] for each in templates.properties("AWS::ECS::TaskDefinition")}
    containers = {each["Name"]: each for each in tasks["spaceport-worker"]}
    assert set(containers) == {"setup", "worker-ecs-cpu", "worker-ecs-gpu", "scaler", "watch"}
    assert containers.pop("setup")["Essential"] is False
    for each in containers.values():
        assert each["DependsOn"] == [{"ContainerName": "setup", "Condition": "SUCCESS"}]


def test_the_watch_tells_metrics_and_may_stop_tasks(templates: Templates) -> None:
    tasks = {each["Family"]: each["ContainerDefinitions"] for each in templates.properties("AWS::ECS::TaskDefinition")}
    watch = next(each for each in tasks["spaceport-worker"] if each["Name"] == "watch")
    assert watch["Command"] == ["python", "-m", "deployments.aws.runtime.watch"]
    assert {"Name": "SPACEPORT_METRICS", "Value": "emf"} in watch["Environment"]
    statements = statements_of(templates, "WorkerRole")
    for action in ("ecs:ListTasks", "ecs:DescribeTasks", "ecs:StopTask"):
        statement = next(each for each in statements if action in each["Action"])
        assert "ecs:cluster" in statement["Condition"]["ArnEquals"], action


@pytest.mark.parametrize(
    ("context", "says"),
    [
        ({"max_gpu_instances": "0"}, "max_gpu_instances=0"),
        ({"cpu_digest": "latest"}, "cpu_digest=latest"),
        ({"keep_days": "14"}, "keep_days=14"),
        ({"upload_limits": '{"max_step": 1}'}, "-c upload_limits: 'max_step'"),
        ({"prefect_api_url": "https://example.org/api"}, "prefect_api_key_secret"),
    ],
)
def test_a_wrong_choice_is_one_sentence(context: dict[str, str], says: str) -> None:
    with pytest.raises(OptionsError, match=says):
        AwsOptions.from_context(context.get)


def test_the_account_describes_itself_as_the_pools_read_it(templates: Templates, other_templates: Templates) -> None:
    ours = Infrastructure.model_validate_json(joined(templates.properties("AWS::SSM::Parameter")[0]["Value"]))
    assert ours.prefect_secret_name == "PREFECT_API_AUTH_STRING"
    assert ours.prefect_api_url.endswith("spaceport.internal:4200/api")
    assert ours.public_addresses
    assert ours.gpu_image.endswith(":0.1.0")
    assert len(ours.subnets) == 2
    assert (ours.ec2_group, ours.ec2_group_on_demand) == ("spaceport-ec2-gpu", "spaceport-ec2-gpu-on-demand")
    theirs = Infrastructure.model_validate_json(joined(other_templates.properties("AWS::SSM::Parameter")[0]["Value"]))
    assert theirs.prefect_secret_name == "PREFECT_API_KEY"
    assert not theirs.public_addresses
    assert theirs.gpu_image.endswith(f"@sha256:{'0' * 64}")
    assert theirs.public_url is not None
    assert theirs.ec2_group_on_demand is None, "its first group is on demand already"


def joined(value: Any) -> str:
    """A string of a template, with what only an account knows left as it is written."""
    if isinstance(value, str):
        return value
    assert list(value) == ["Fn::Join"], value
    separator, parts = value["Fn::Join"]
    return str(separator).join(part if isinstance(part, str) else "known-later" for part in parts)
