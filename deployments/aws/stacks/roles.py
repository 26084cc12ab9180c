"""Permissions: one role for each component, limited to the actions and resources that it uses."""

from collections.abc import Mapping, Sequence
from typing import Any

from aws_cdk import Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

from deployments.aws.stacks.checks import acknowledge
from deployments.aws.stacks.data import RESULTS, UPLOADS, WORKSPACE, Data

TASKS = "ecs-tasks.amazonaws.com"
INSTANCES = "ec2.amazonaws.com"
OBJECTS = "Objects below one prefix of one bucket: their names are not known beforehand."
OBJECT_ACTIONS = ("s3:GetObject", "s3:PutObject", "s3:DeleteObject", "s3:AbortMultipartUpload")


def role(scope: Construct, name: str, service: str, description: str) -> iam.Role:
    """Create a role for one service, without permissions yet."""
    return iam.Role(scope, name, assumed_by=iam.ServicePrincipal(service), description=description)


def allow(
    to: iam.Role,
    reason: str | None,
    actions: Sequence[str],
    resources: Sequence[str],
    conditions: Mapping[str, object] | None = None,
) -> None:
    """Grant actions to a role. `reason` says why the resource has a wildcard; None if it has none."""
    wild = any("*" in resource for resource in resources)
    assert wild == (reason is not None), f"{to.node.path}: a reason is for wildcards, and wildcards need one: {actions}"
    to.add_to_policy(iam.PolicyStatement(actions=list(actions), resources=list(resources), conditions=conditions))
    for resource in resources:
        if "*" in resource:
            assert reason is not None
            acknowledge(to, reason, f"IAM5[Resource::{_as_nag_writes(Stack.of(to).resolve(resource))}]")


def _as_nag_writes(resolved: Any) -> str:
    """Return a resource of a template in cdk-nag's notation: `arn:<AWS::Partition>:s3:::…`."""
    if isinstance(resolved, str):
        return resolved
    if "Ref" in resolved:
        return f"<{resolved['Ref']}>"
    assert list(resolved) == ["Fn::Join"], resolved
    separator, parts = resolved["Fn::Join"]
    return str(separator).join(_as_nag_writes(part) for part in parts)


def run_role(scope: Construct, data: Data) -> iam.Role:
    """Create the role of runs and of stages without a GPU: reads uploads, writes workspace and results."""
    made = role(scope, "RunRole", TASKS, "Spaceport runs and CPU stages")
    allow_listing(made, data.uploads_name, UPLOADS)
    allow(made, OBJECTS, ["s3:GetObject"], [objects_arn(scope, data.uploads_name, UPLOADS)])
    allow_listing(made, data.results_name, WORKSPACE, RESULTS)
    allow(
        made,
        OBJECTS,
        OBJECT_ACTIONS,
        [objects_arn(scope, data.results_name, folder) for folder in (WORKSPACE, RESULTS)],
    )
    return made


def train_role(scope: Construct, data: Data) -> iam.Role:
    """Create the role of training on ECS: the workspace and nothing else."""
    made = role(scope, "TrainRole", TASKS, "Spaceport training")
    allow_workspace(made, data)
    return made


def allow_workspace(to: iam.Role, data: Data) -> None:
    """Read and write stage outputs, checkpoints and run folders."""
    allow_listing(to, data.results_name, WORKSPACE)
    allow(to, OBJECTS, OBJECT_ACTIONS, [objects_arn(to, data.results_name, WORKSPACE)])


def allow_listing(to: iam.Role, bucket: str, *prefixes: str) -> None:
    """Allow to list a bucket below these prefixes."""
    condition = {"StringLike": {"s3:prefix": [f"{prefix}/*" for prefix in prefixes]}}
    allow(to, None, ["s3:ListBucket"], [bucket_arn(to, bucket)], condition)


def bucket_arn(scope: Construct, bucket: str) -> str:
    """Return a bucket's ARN by name, so that policies are readable and no stack depends on another stack's export."""
    return f"arn:{Stack.of(scope).partition}:s3:::{bucket}"


def objects_arn(scope: Construct, bucket: str, names: str) -> str:
    """Return the ARN of everything below a prefix; or of `names` itself if it has a wildcard."""
    return f"{bucket_arn(scope, bucket)}/{names if '*' in names else f'{names}/*'}"


def streams_arn(scope: Construct, log_group: str) -> str:
    """Return the ARN of all streams of a log group."""
    return region_arn(scope, "logs", f"log-group:{log_group}:*")


def execution_role(
    scope: Construct, name: str, data: Data, log_groups: Sequence[str], secrets: Sequence[str]
) -> iam.Role:
    """Create the role of ECS itself when it starts a container: image, log stream, secrets."""
    made = role(scope, name, TASKS, "Spaceport: pulls images, writes logs, reads the Prefect secret")
    allow_images(made, data)
    allow(
        made,
        "Streams of these log groups.",
        ["logs:CreateLogStream", "logs:PutLogEvents"],
        [streams_arn(scope, group) for group in log_groups],
    )
    allow(made, None, ["secretsmanager:GetSecretValue"], secrets)
    return made


def allow_images(to: iam.Role, data: Data) -> None:
    """Pull our images."""
    allow(to, "ecr:GetAuthorizationToken knows no resources.", ["ecr:GetAuthorizationToken"], ["*"])
    allow(
        to,
        None,
        ["ecr:BatchCheckLayerAvailability", "ecr:GetDownloadUrlForLayer", "ecr:BatchGetImage"],
        [repository.repository_arn for repository in (data.cpu_repository, data.gpu_repository)],
    )


def ecs_instance_role(scope: Construct, data: Data, cluster_arn: str) -> iam.Role:
    """Create the role of instances that run ECS tasks: the agent's calls, on this cluster. Tasks have their own roles.

    https://docs.aws.amazon.com/AmazonECS/latest/developerguide/instance_IAM_role.html
    """
    made = role(scope, "EcsInstanceRole", INSTANCES, "Spaceport: the ECS agent of GPU instances")
    allow_images(made, data)
    allow(made, "Calls of the ECS agent that know no resources.", ["ecs:DiscoverPollEndpoint"], ["*"])
    allow(
        made,
        None,
        [
            "ecs:DeregisterContainerInstance",
            "ecs:RegisterContainerInstance",
            "ecs:SubmitAttachmentStateChanges",
            "ecs:SubmitContainerStateChange",
            "ecs:SubmitTaskStateChange",
        ],
        [cluster_arn],
    )
    allow(
        made,
        "The ids of its own instance are not known beforehand; the condition keeps it to this cluster.",
        ["ecs:Poll", "ecs:StartTelemetrySession", "ecs:UpdateContainerInstancesState"],
        ["*"],
        {"ArnEquals": {"ecs:cluster": cluster_arn}},
    )
    return made


def region_arn(scope: Construct, service: str, resource: str) -> str:
    """Return an ARN in this account and region."""
    stack = Stack.of(scope)
    return f"arn:{stack.partition}:{service}:{stack.region}:{stack.account}:{resource}"
