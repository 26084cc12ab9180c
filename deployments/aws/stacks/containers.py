"""Fargate services: the common parts of the server, the workers and the listener."""

from collections.abc import Mapping, Sequence

from aws_cdk import Duration
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from constructs import Construct

from deployments.aws.stacks.checks import acknowledge
from deployments.aws.stacks.compute import Compute
from deployments.aws.stacks.network import Network

PLAIN_SETTINGS = "Addresses and names; what is secret comes from Secrets Manager."
STOP_SECONDS = 60
# Volumes of the task's own disk. The image declares them, so that they belong to its user (docker/cpu.Dockerfile).
WRITABLE = ("/tmp", "/var/lib/spaceport")  # noqa: S108 - inside a container


def task_definition(
    scope: Construct, name: str, execution_role: iam.Role, role: iam.Role, cpu: int, memory: int
) -> ecs.FargateTaskDefinition:
    """Create a task of that size with a role of its own."""
    made = ecs.FargateTaskDefinition(
        scope,
        f"{name}Task",
        family=f"spaceport-{name.lower()}",
        cpu=cpu,
        memory_limit_mib=memory,
        task_role=role.without_policy_updates(),  # CDK would grant sessions more than they need
        execution_role=execution_role.without_policy_updates(),  # roles.py has all of its permissions
    )
    acknowledge(made, PLAIN_SETTINGS, "ECS2")
    return made


def container(
    task: ecs.FargateTaskDefinition,
    name: str,
    compute: Compute,
    command: Sequence[str],
    environment: Mapping[str, str],
    secret_names: Sequence[str],
    *,
    essential: bool = True,
    health_check: ecs.HealthCheck | None = None,
    port: int | None = None,
    writable_root: bool = False,
) -> ecs.ContainerDefinition:
    """Add a container of the CPU image; the Prefect secret is in each variable of `secret_names`.

    It can write only to the folders of WRITABLE, unless `writable_root` is set, and has none of root's capabilities.
    """
    linux = ecs.LinuxParameters(task, f"{name}-init", init_process_enabled=True)
    linux.drop_capabilities(ecs.Capability.ALL)
    made = task.add_container(
        name,
        image=ecs.ContainerImage.from_registry(compute.cpu_image),
        command=list(command),
        environment=dict(environment),
        secrets={each: ecs.Secret.from_secrets_manager(compute.prefect_secret) for each in secret_names},
        logging=ecs.LogDriver.aws_logs(stream_prefix=name, log_group=compute.service_logs),
        essential=essential,
        health_check=health_check,
        port_mappings=None if port is None else [ecs.PortMapping(container_port=port)],
        stop_timeout=Duration.seconds(STOP_SECONDS),
        linux_parameters=linux,
        readonly_root_filesystem=not writable_root,
    )
    for folder in WRITABLE:
        volume = f"{name}{folder.replace('/', '-')}"
        task.add_volume(name=volume)
        made.add_mount_points(ecs.MountPoint(source_volume=volume, container_path=folder, read_only=False))
    return made


def service(
    scope: Construct,
    name: str,
    compute: Compute,
    network: Network,
    task: ecs.FargateTaskDefinition,
    *,
    overlapping: bool,
    cloud_map: ecs.CloudMapOptions | None = None,
    commands_inside: bool = False,
) -> ecs.FargateService:
    """Create a service with one task; a new version that does not start is rolled back.

    `overlapping`: the new version starts before the old one has ended.
    """
    return ecs.FargateService(
        scope,
        name,
        service_name=f"spaceport-{name.lower()}",
        cluster=compute.cluster,
        task_definition=task,
        desired_count=1,
        assign_public_ip=network.public_addresses,
        vpc_subnets=network.compute_subnets,
        security_groups=[network.groups[name]],
        min_healthy_percent=100 if overlapping else 0,
        max_healthy_percent=200 if overlapping else 100,
        circuit_breaker=ecs.DeploymentCircuitBreaker(rollback=True),
        cloud_map_options=cloud_map,
        enable_execute_command=commands_inside,
    )
