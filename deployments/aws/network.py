"""One VPC. By default without NAT: public addresses to call out with, and security groups that let nobody in."""

from aws_cdk import RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_logs as logs
from constructs import Construct

from deployments.aws.checks import AWS_KEY, excuse
from deployments.aws.options import AwsOptions


class Network(Stack):
    """VPC with subnets in two zones, the free S3 endpoint, and a log of what was refused."""

    def __init__(self, scope: Construct, name: str, options: AwsOptions) -> None:
        super().__init__(scope, name, description="Spaceport: VPC")
        subnets = [
            ec2.SubnetConfiguration(name="public", subnet_type=ec2.SubnetType.PUBLIC, cidr_mask=20),
            ec2.SubnetConfiguration(name="database", subnet_type=ec2.SubnetType.PRIVATE_ISOLATED, cidr_mask=24),
        ]
        if options.private:
            subnets.append(
                ec2.SubnetConfiguration(name="private", subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS, cidr_mask=20)
            )
        refused = logs.LogGroup(
            self, "Refused", retention=logs.RetentionDays.ONE_MONTH, removal_policy=RemovalPolicy.DESTROY
        )
        excuse(refused, AWS_KEY, "158")
        self.vpc = ec2.Vpc(
            self,
            "Vpc",
            ip_addresses=ec2.IpAddresses.cidr("10.60.0.0/16"),
            max_azs=2,
            nat_gateways=1 if options.private else 0,
            subnet_configuration=subnets,
            # Photos and results go by the thousand between here and S3; this way costs nothing and needs no NAT.
            gateway_endpoints={"S3": ec2.GatewayVpcEndpointOptions(service=ec2.GatewayVpcEndpointAwsService.S3)},
            flow_logs={
                "Refused": ec2.FlowLogOptions(
                    destination=ec2.FlowLogDestination.to_cloud_watch_logs(refused),
                    traffic_type=ec2.FlowLogTrafficType.REJECT,
                )
            },
        )
        self.compute_subnets = ec2.SubnetSelection(
            subnet_type=ec2.SubnetType.PRIVATE_WITH_EGRESS if options.private else ec2.SubnetType.PUBLIC
        )
        self.public_addresses = not options.private
        # Of everything that computes: no ingress rule at all.
        self.compute_group = ec2.SecurityGroup(
            self, "Compute", vpc=self.vpc, description="Spaceport tasks and instances: out only"
        )
