"""One VPC. By default it has no NAT: tasks have public addresses for outgoing calls, and accept none from outside.

Each component has its own security group. All may make HTTPS calls; the server's port is open to its clients, and the
database's port to the server alone.
"""

from urllib.parse import urlsplit

from aws_cdk import RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from constructs import Construct

from deployments.aws.stacks.checks import AWS_KEY, excuse
from deployments.aws.stacks.data import bucket_name
from deployments.aws.stacks.options import AwsOptions
from deployments.aws.stacks.roles import OBJECT_ACTIONS

API_PORT = 4200  # of our own server
DATABASE_PORT = 5433  # not the default, which attackers try first
HTTPS = 443
CLIENTS = ("Worker", "Listener", "Run", "Gpu")  # of the Prefect server; Gpu: instances of both GPU pools


class Network(Stack):
    """VPC with subnets in two zones, the free S3 endpoint, security groups, and a log of what was refused."""

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
            # Thousands of photos and results travel to and from S3; this endpoint is free and needs no NAT.
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
        self._limit_endpoint()
        self.groups = {name: self._group(name) for name in CLIENTS}
        if options.prefect_api_url is None:
            self._let_in_to_server()
        else:
            self._let_out_to(options.prefect_api_url)

    def _limit_endpoint(self) -> None:
        """Allow our two buckets for roles of this account, and reads from AWS's buckets of images and packages."""
        endpoint = self.vpc.node.find_child("S3")
        assert isinstance(endpoint, ec2.GatewayVpcEndpoint)
        buckets = [f"arn:{self.partition}:s3:::{bucket_name(self, use)}" for use in ("uploads", "results")]
        ours = {"StringEquals": {"aws:PrincipalAccount": self.account}}
        for actions, resources, conditions in (
            (["s3:ListBucket"], buckets, ours),
            (list(OBJECT_ACTIONS), [f"{bucket}/*" for bucket in buckets], ours),
            (
                ["s3:GetObject"],
                [
                    # https://docs.aws.amazon.com/AmazonECR/latest/userguide/vpc-endpoints.html
                    f"arn:{self.partition}:s3:::prod-{self.region}-starport-layer-bucket/*",
                    # Packages of Amazon Linux 2023, of which GPU instances install one when they start.
                    f"arn:{self.partition}:s3:::al2023-repos-{self.region}-de612dc2/*",
                ],
                None,
            ),
        ):
            endpoint.add_to_policy(
                iam.PolicyStatement(
                    principals=[iam.AnyPrincipal()], actions=actions, resources=resources, conditions=conditions
                )
            )

    def _group(self, name: str) -> ec2.SecurityGroup:
        """Create a security group without inbound rules, and with HTTPS outbound for calls of AWS."""
        group = ec2.SecurityGroup(
            self, name, vpc=self.vpc, description=f"Spaceport: {name.lower()}", allow_all_outbound=False
        )
        group.add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(HTTPS), "AWS and other services")
        return group

    def _let_in_to_server(self) -> None:
        server = self.groups["Server"] = self._group("Server")
        for name in CLIENTS:
            self.groups[name].add_egress_rule(server, ec2.Port.tcp(API_PORT), "Prefect API")
            server.add_ingress_rule(self.groups[name], ec2.Port.tcp(API_PORT), f"Prefect API, {name.lower()}")
        database = self.groups["Database"] = ec2.SecurityGroup(
            self, "Database", vpc=self.vpc, description="Spaceport: database", allow_all_outbound=False
        )
        server.add_egress_rule(database, ec2.Port.tcp(DATABASE_PORT), "Postgres")
        database.add_ingress_rule(server, ec2.Port.tcp(DATABASE_PORT), "Postgres, server")

    def _let_out_to(self, api_url: str) -> None:
        """Port of another operator's server, if it is not that of HTTPS."""
        url = urlsplit(api_url)
        port = url.port or (80 if url.scheme == "http" else HTTPS)
        for name in CLIENTS if port != HTTPS else ():
            self.groups[name].add_egress_rule(ec2.Peer.any_ipv4(), ec2.Port.tcp(port), "Prefect API")
