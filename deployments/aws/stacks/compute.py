"""Compute: an ECS cluster with Fargate and zero or more GPU instances, and the groups of pool `spaceport-ec2-gpu`."""

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_secretsmanager as secretsmanager
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from deployments.aws.stacks.checks import AWS_KEY, SQS_KEY, acknowledge, excuse
from deployments.aws.stacks.data import Data
from deployments.aws.stacks.network import Network
from deployments.aws.stacks.options import AwsOptions
from deployments.aws.stacks.roles import (
    INSTANCES,
    allow,
    allow_images,
    allow_workspace,
    ecs_instance_role,
    execution_role,
    region_arn,
    role,
    run_role,
    streams_arn,
    train_role,
)

ROOT_GB = 100  # the GPU image takes about 20 when it is unpacked
# An instance that fails to start ends itself, since nothing else would end it, and it costs money. Its console output
# can be read for another hour.
END_UNLESS_STARTED = "trap '[ $? = 0 ] || shutdown -h now' EXIT"
# The instance store of g4dn and g5 is encrypted by the hardware with a key that ends with the instance:
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/data-protection.html#encryption-rest
SCRATCH = """
device=$(lsblk --noheadings --paths --output NAME,MODEL | awk '/Instance Storage/ && !found {print $1; found = 1}')
mkdir --parents /scratch
if [ -n "$device" ]; then
  mkfs.ext4 -q "$device"
  mount -o noatime "$device" /scratch
fi
install --directory --owner 10001 --group 10001 /scratch/spaceport
"""


def gpu_group(
    scope: Construct,
    id_: str,
    network: Network,
    options: AwsOptions,
    role: iam.Role,
    commands: str,
    *,
    spot: bool,
    name: str | None = None,
    hops: int = 1,
) -> autoscaling.AutoScalingGroup:
    """Make a group of 0 to `max_gpu_instances` instances of any available type.

    Args:
        scope: the stack.
        id_: of the group in the stack.
        network: where.
        options: types and how many.
        role: of the instances.
        commands: what an instance does when it starts, after its scratch disk is there.
        spot: on spot instances only; else on demand only.
        name: of the group, if others need to know it; None for a generated one.
        hops: to the metadata service. 1 denies containers on the bridge the instance's own role; 2 allows it.
    """
    data = ec2.UserData.for_linux(shebang="#!/bin/bash")
    data.add_commands("set -euo pipefail", END_UNLESS_STARTED, SCRATCH.strip(), commands.strip())
    template = ec2.LaunchTemplate(
        scope,
        f"{id_}Template",
        # The newest GPU image of ECS (driver, container toolkit, agent), looked up by SSM when an instance starts.
        machine_image=ecs.EcsOptimizedImage.amazon_linux2023(ecs.AmiHardwareType.GPU),
        instance_type=ec2.InstanceType(options.gpu_instance_types[0]),
        role=role,
        security_group=network.groups["Gpu"],
        user_data=data,
        instance_initiated_shutdown_behavior=ec2.InstanceInitiatedShutdownBehavior.TERMINATE,
        require_imdsv2=True,
        http_put_response_hop_limit=hops,
        block_devices=[
            ec2.BlockDevice(
                device_name="/dev/xvda",
                volume=ec2.BlockDeviceVolume.ebs(ROOT_GB, encrypted=True, volume_type=ec2.EbsDeviceVolumeType.GP3),
            )
        ],
    )
    group = autoscaling.AutoScalingGroup(
        scope,
        id_,
        auto_scaling_group_name=name,
        vpc=network.vpc,
        vpc_subnets=network.compute_subnets,
        min_capacity=0,
        max_capacity=options.max_gpu_instances,
        new_instances_protected_from_scale_in=True,  # the service that gives them work removes the protection
        mixed_instances_policy=autoscaling.MixedInstancesPolicy(
            launch_template=template,
            launch_template_overrides=[
                autoscaling.LaunchTemplateOverrides(instance_type=ec2.InstanceType(kind))
                for kind in options.gpu_instance_types
            ],
            instances_distribution=autoscaling.InstancesDistribution(
                on_demand_base_capacity=0,
                on_demand_percentage_above_base_capacity=0 if spot else 100,
                spot_allocation_strategy=autoscaling.SpotAllocationStrategy.PRICE_CAPACITY_OPTIMIZED if spot else None,
                # In the order of `gpu_instance_types`, which is the order of their prices.
                on_demand_allocation_strategy=None if spot else autoscaling.OnDemandAllocationStrategy.PRIORITIZED,
            ),
        ),
        default_instance_warmup=Duration.seconds(90),
        group_metrics=[autoscaling.GroupMetrics.all()],
    )
    acknowledge(group, "Instances come and go with every run; alarms tell of those that stay.", "AS3")
    acknowledge(
        group,
        "cdk-nag's rule ends in an error for groups with several instance types; a test asserts that disks are "
        "encrypted.",
        "EC26",
    )
    return group


LOG_DAYS = logs.RetentionDays.ONE_MONTH
INFRASTRUCTURE = "/spaceport/infrastructure"  # SSM parameter that deployments/aws/runtime/infrastructure.py reads
EC2_POOL = "ec2-gpu"  # without the prefix, which only the Prefect server needs
EC2_GROUP = "spaceport-ec2-gpu"  # name of its group of instances
EC2_GROUP_ON_DEMAND = f"{EC2_GROUP}-on-demand"  # the scaler uses it if no spot instance is available
# Instances of that pool have a separate log: the runs on them can write to it, but not to the services' log.
RUN_LOGS, SERVICE_LOGS, GPU_HOST_LOGS = "/spaceport/runs", "/spaceport/services", "/spaceport/gpu-hosts"

# ECS_SELINUX_CAPABLE says that the instance takes tasks with `dockerSecurityOptions` (pools/ecs-gpu.json).
ECS_AGENT = """
cat >> /etc/ecs/ecs.config <<CONFIG
ECS_CLUSTER={cluster}
ECS_ENABLE_GPU_SUPPORT=true
ECS_SELINUX_CAPABLE=true
ECS_ENABLE_SPOT_INSTANCE_DRAINING=true
ECS_CONTAINER_STOP_TIMEOUT=115s
ECS_IMAGE_PULL_BEHAVIOR=prefer-cached
CONFIG
"""
# The same machine image without its ECS agent. The container's program ends the instance after a long enough idle time
# (deployments/aws/runtime/gpu_host.py). If the container ends in any other way, the instance ends with it.
WORKER_HOST = """
systemctl mask --now ecs
systemctl start docker
timeout 300 dnf install --assumeyes --quiet awscli
export AWS_DEFAULT_REGION={region}
registry=$(cut --delimiter=/ --fields=1 <<< "{image}")
aws ecr get-login-password | docker login --username AWS --password-stdin "$registry"
timeout 600 docker pull --quiet "{image}"
docker run --name worker --gpus all --stop-timeout 115 --restart no --detach \\
  --read-only --tmpfs /tmp:size=2g --cap-drop ALL --security-opt no-new-privileges \\
  --volume /scratch/spaceport:/scratch --env SPACEPORT_HOME=/scratch --env PREFECT_HOME=/scratch/prefect \\
  --env NUMBA_CACHE_DIR=/scratch/numba \\
  --env AWS_DEFAULT_REGION={region} \\
  --log-driver awslogs --log-opt awslogs-group={logs} --log-opt awslogs-region={region} \\
  "{image}" python -m deployments.aws.runtime.gpu_host
systemd-run --unit spaceport-end bash -c 'docker wait worker; shutdown -h now'
"""


class Compute(Stack):
    """Cluster, capacity, roles of its tasks, logs, and the queue of events that report how tasks ended."""

    def __init__(self, scope: Construct, name: str, options: AwsOptions, network: Network, data: Data) -> None:
        super().__init__(scope, name, description="Spaceport: ECS cluster, GPU capacity, roles of runs")
        self.cpu_image = _image(data.cpu_repository.repository_uri, options.image_tag, options.cpu_digest)
        self.gpu_image = _image(data.gpu_repository.repository_uri, options.image_tag, options.gpu_digest)
        self.cluster = ecs.Cluster(
            self, "Cluster", vpc=network.vpc, container_insights_v2=ecs.ContainerInsights.ENABLED
        )
        self.run_logs = self._log_group("RunLogs", RUN_LOGS)
        self.service_logs = self._log_group("ServiceLogs", SERVICE_LOGS)
        self._log_group("GpuHostLogs", GPU_HOST_LOGS)
        self.prefect_secret = self._prefect_secret(options)
        self.execution_role = execution_role(
            self, "ExecutionRole", data, [SERVICE_LOGS], [self.prefect_secret.secret_arn]
        )
        # IAM cannot restrict a role to be passed as an execution role only. The role that workers pass can therefore
        # only read the secret that every run receives anyway, and write to the runs' own log.
        self.run_execution_role = execution_role(
            self, "RunExecutionRole", data, [RUN_LOGS], [self.prefect_secret.secret_arn]
        )
        self.run_role = run_role(self, data)
        self.train_role = train_role(self, data)
        self.events_queue_name = self._task_events()
        self.groups: dict[str, autoscaling.AutoScalingGroup] = {}  # by what they are for
        self.capacity_providers = self._ecs_capacity(options, network, data)
        self._ec2_pool(options, network, data)

    def _log_group(self, name: str, log_group_name: str) -> logs.LogGroup:
        group = logs.LogGroup(
            self,
            name,
            log_group_name=log_group_name,
            retention=LOG_DAYS,
            removal_policy=RemovalPolicy.DESTROY,
        )
        excuse(group, AWS_KEY, "158")
        return group

    def _prefect_secret(self, options: AwsOptions) -> secretsmanager.ISecret:
        """Return the secret: the auth string of our own server, or the API key of another one."""
        if options.prefect_api_key_secret is not None:
            return secretsmanager.Secret.from_secret_complete_arn(self, "PrefectKey", options.prefect_api_key_secret)
        secret = secretsmanager.Secret(
            self,
            "PrefectAuth",
            description="PREFECT_API_AUTH_STRING of the Spaceport server, API and UI",
            generate_secret_string=secretsmanager.SecretStringGenerator(password_length=40, exclude_punctuation=True),
        )
        acknowledge(
            secret, "Every client would have to start anew; README.md beside this says how to replace it.", "SMG4"
        )
        excuse(secret, AWS_KEY, "149")
        return secret

    def _task_events(self) -> str:
        """Create the queue of task state changes for the workers; without it the run of a dead task stays Running."""
        dead = sqs.Queue(
            self,
            "TaskEventsDeadLetters",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=Duration.days(14),
        )
        self.events_queue = sqs.Queue(
            self,
            "TaskEvents",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            visibility_timeout=Duration.seconds(300),  # what the observer in prefect-aws asks for
            retention_period=Duration.days(7),
            dead_letter_queue=sqs.DeadLetterQueue(queue=dead, max_receive_count=3),
        )
        for each in (dead, self.events_queue):
            excuse(each, SQS_KEY, "27")
        events.Rule(
            self,
            "TaskChanged",
            description="A task of the Spaceport cluster has changed",
            event_pattern=events.EventPattern(
                source=["aws.ecs"],
                detail_type=["ECS Task State Change"],
                detail={"clusterArn": [self.cluster.cluster_arn]},
            ),
            targets=[targets.SqsQueue(self.events_queue, dead_letter_queue=dead)],
        )
        return self.events_queue.queue_name

    def _ecs_capacity(self, options: AwsOptions, network: Network, data: Data) -> dict[str, str]:
        """Return the names of the capacity providers, for first attempts at a stage and for later ones.

        ECS does not use a second provider if the first finds no machine. Instead, the next attempt at the stage asks
        for `again`.
        """
        instances = ecs_instance_role(self, data, self.cluster.cluster_arn)
        commands = ECS_AGENT.format(cluster=self.cluster.cluster_name)
        names = {}
        for use, spot in (("first", options.spot), ("again", False)):
            group = gpu_group(self, f"EcsGpu{use.capitalize()}", network, options, instances, commands, spot=spot)
            self.groups[f"ecs-gpu, {use} attempts"] = group
            names[use] = self._capacity_provider(use, group)
        ecs.CfnClusterCapacityProviderAssociations(
            self,
            "Capacity",
            cluster=self.cluster.cluster_name,
            capacity_providers=["FARGATE", *names.values()],
            default_capacity_provider_strategy=[],
        )
        return names

    def _capacity_provider(self, use: str, group: autoscaling.AutoScalingGroup) -> str:
        return ecs.CfnCapacityProvider(
            self,
            f"Gpu{use.capitalize()}",
            auto_scaling_group_provider=ecs.CfnCapacityProvider.AutoScalingGroupProviderProperty(
                auto_scaling_group_arn=group.auto_scaling_group_name,  # a name will do
                managed_draining="ENABLED",
                managed_termination_protection="ENABLED",
                managed_scaling=ecs.CfnCapacityProvider.ManagedScalingProperty(
                    status="ENABLED", target_capacity=100, instance_warmup_period=90
                ),
            ),
        ).ref

    def _ec2_pool(self, options: AwsOptions, network: Network, data: Data) -> None:
        """Create instances that run a Prefect worker instead of ECS tasks. Our scaler sets the size of each group.

        The worker and its runs share a container on Docker's bridge, and therefore the instance's role: a run there has
        all the permissions of the role.

        There are two groups, as for ECS, because a group without available spot instances waits for one, even if it
        could have on-demand ones: https://docs.aws.amazon.com/autoscaling/ec2/userguide/asg-purchase-options.html
        """
        made = role(self, "Ec2WorkerRole", INSTANCES, "Spaceport: workers of pool ec2-gpu")
        allow_images(made, data)
        allow_workspace(made, data)
        allow(made, None, ["ssm:GetParameter"], [region_arn(self, "ssm", f"parameter{INFRASTRUCTURE}")])
        allow(made, None, ["secretsmanager:GetSecretValue"], [self.prefect_secret.secret_arn])
        allow(
            made,
            "Streams of this log group.",
            ["logs:CreateLogStream", "logs:PutLogEvents"],
            [streams_arn(self, GPU_HOST_LOGS)],
        )
        protect = ["autoscaling:SetInstanceProtection", "autoscaling:TerminateInstanceInAutoScalingGroup"]
        allow(
            made,
            "The id within the ARN of a group is not known beforehand, its name is.",
            protect,
            ec2_group_arns(self, options),
        )
        commands = WORKER_HOST.format(image=self.gpu_image, logs=GPU_HOST_LOGS, region=self.region)
        group = gpu_group(self, "Ec2Gpu", network, options, made, commands, spot=options.spot, name=EC2_GROUP, hops=2)
        self.groups[EC2_POOL] = group
        if options.spot:
            self.groups[f"{EC2_POOL}, on demand"] = gpu_group(
                self, "Ec2GpuOnDemand", network, options, made, commands, spot=False, name=EC2_GROUP_ON_DEMAND, hops=2
            )


def ec2_group_arns(scope: Construct, options: AwsOptions) -> list[str]:
    """Return the ARNs of the groups of pool spaceport-ec2-gpu; the wildcard is an id that is not known in advance."""
    names = [EC2_GROUP, EC2_GROUP_ON_DEMAND] if options.spot else [EC2_GROUP]
    return [region_arn(scope, "autoscaling", f"autoScalingGroup:*:autoScalingGroupName/{name}") for name in names]


def _image(repository: str, tag: str, digest: str | None) -> str:
    return f"{repository}@{digest}" if digest else f"{repository}:{tag}"
