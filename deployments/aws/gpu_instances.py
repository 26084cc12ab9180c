"""Groups of GPU instances that are empty while nothing is to be computed."""

from aws_cdk import Duration
from aws_cdk import aws_autoscaling as autoscaling
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from constructs import Construct

from deployments.aws.checks import acknowledge
from deployments.aws.network import Network
from deployments.aws.options import AwsOptions

ROOT_GB = 100  # the GPU image takes about 20 when it is unpacked
# An instance that fails to start ends itself: nothing else would, and it costs money. Its console output can be read
# for an hour after that.
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
    """From none to `max_gpu_instances` instances of whichever type is to be had.

    Args:
        scope: the stack.
        id_: of the group in the stack.
        network: where.
        options: types and how many.
        role: of the instances.
        commands: what an instance does when it starts, after its scratch disk is there.
        spot: on spot instances only; else on demand only.
        name: of the group, where others have to know it; else CloudFormation makes one.
        hops: to the metadata service. 1 keeps containers on the bridge from the instance's own role; 2 lets them in.
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
        new_instances_protected_from_scale_in=True,  # whoever gives them work takes the protection away
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
