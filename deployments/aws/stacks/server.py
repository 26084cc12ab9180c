"""Our own Prefect server: one Fargate task and a Postgres on RDS. Left out if the operator has a server already.

It cannot be reached from outside. The UI is opened through a Systems Manager session, which requires IAM permissions,
and the API requires the password in Secrets Manager.
"""

from aws_cdk import Duration, RemovalPolicy, Stack
from aws_cdk import aws_ec2 as ec2
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_rds as rds
from aws_cdk import aws_servicediscovery as servicediscovery
from constructs import Construct

from deployments.aws.stacks.checks import AWS_KEY, acknowledge, excuse
from deployments.aws.stacks.compute import SERVICE_LOGS, Compute
from deployments.aws.stacks.containers import container, service, task_definition
from deployments.aws.stacks.data import Data
from deployments.aws.stacks.network import API_PORT, DATABASE_PORT, Network
from deployments.aws.stacks.roles import TASKS, allow, execution_role, role
from deployments.local.server_settings import retention

DATABASE = "prefect"
ONE_ZONE = (
    "It holds the history of runs and nothing that cannot be computed again: a second zone doubles its price, and "
    "backups reach back a week."
)
SESSIONS = "Session channels know no resources. Who may open a session is said by ecs:ExecuteCommand."
HEALTHY = f"import urllib.request as r; r.urlopen('http://127.0.0.1:{API_PORT}/api/health', timeout=5)"


class Server(Stack):
    """Database, server, and its name inside the VPC."""

    def __init__(
        self, scope: Construct, name: str, network: Network, data: Data, compute: Compute, keep_days: int
    ) -> None:
        super().__init__(scope, name, description="Spaceport: Prefect server and its database")
        self.database = self._database(network)
        self.service = self._service(network, data, compute, keep_days)
        self.api_url = f"http://server.spaceport.internal:{API_PORT}/api"

    def _database(self, network: Network) -> rds.DatabaseInstance:
        engine = rds.DatabaseInstanceEngine.postgres(version=rds.PostgresEngineVersion.VER_17_9)
        database = rds.DatabaseInstance(
            self,
            "Database",
            engine=engine,
            instance_type=ec2.InstanceType("t4g.micro"),
            vpc=network.vpc,
            vpc_subnets=ec2.SubnetSelection(subnet_type=ec2.SubnetType.PRIVATE_ISOLATED),
            security_groups=[network.groups["Database"]],
            port=DATABASE_PORT,
            database_name=DATABASE,
            credentials=rds.Credentials.from_generated_secret(DATABASE),
            parameter_group=rds.ParameterGroup(self, "Parameters", engine=engine, parameters={"rds.force_ssl": "1"}),
            allocated_storage=20,
            max_allocated_storage=100,
            storage_type=rds.StorageType.GP3,
            storage_encrypted=True,
            backup_retention=Duration.days(7),
            deletion_protection=True,
            removal_policy=RemovalPolicy.SNAPSHOT,
            cloudwatch_logs_exports=["postgresql"],
            auto_minor_version_upgrade=True,
            copy_tags_to_snapshot=True,
        )
        acknowledge(
            database,
            ONE_ZONE,
            "RDS3",
        )
        acknowledge(database, "Rotation would have to restart the server, which keeps its connections.", "SMG4")
        excuse(database, ONE_ZONE, "157")
        excuse(
            database, "The free metrics of RDS and an alarm on its disk are enough for a database this small.", "118"
        )
        excuse(database, "Prefect signs in with a password, which only its own execution role can read.", "161")
        assert database.secret is not None
        excuse(database.secret.node.scope or database.secret, AWS_KEY, "149")
        return database

    def _service(self, network: Network, data: Data, compute: Compute, keep_days: int) -> ecs.FargateService:
        made = role(self, "ServerRole", TASKS, "Spaceport: Prefect server; it calls AWS only for sessions")
        allow(
            made,
            SESSIONS,
            [
                "ssmmessages:CreateControlChannel",
                "ssmmessages:CreateDataChannel",
                "ssmmessages:OpenControlChannel",
                "ssmmessages:OpenDataChannel",
            ],
            ["*"],
        )
        excuse(made.node.find_child("DefaultPolicy"), SESSIONS, "111")
        secret = self.database.secret
        assert secret is not None
        starts = execution_role(
            self,
            "ExecutionRole",
            data,
            [SERVICE_LOGS],
            [compute.prefect_secret.secret_arn, secret.secret_arn],
        )
        task = task_definition(self, "Server", starts, made, cpu=512, memory=2048)
        server = container(
            task,
            "server",
            compute,
            ["prefect", "server", "start", "--host", "0.0.0.0", "--port", str(API_PORT)],  # noqa: S104 - the security group lets only our tasks in
            {
                "PREFECT_SERVER_DATABASE_DRIVER": "postgresql+asyncpg",
                "PREFECT_SERVER_DATABASE_HOST": self.database.db_instance_endpoint_address,
                "PREFECT_SERVER_DATABASE_PORT": str(DATABASE_PORT),
                "PREFECT_SERVER_DATABASE_NAME": DATABASE,
                "PREFECT_SERVER_DATABASE_USER": DATABASE,
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                **retention(keep_days),
                "PREFECT_SERVER_SERVICES_CANCELLATION_CLEANUP_CANCELLING_TIMEOUT_SECONDS": "60",
                "PREFECT_UI_API_URL": f"http://127.0.0.1:{API_PORT}/api",  # the near end of the session
                "DO_NOT_TRACK": "1",
            },
            ["PREFECT_SERVER_API_AUTH_STRING"],
            writable_root=True,  # the session agent needs it
            port=API_PORT,
            health_check=ecs.HealthCheck(
                command=["CMD", "python", "-c", HEALTHY],
                interval=Duration.seconds(15),
                timeout=Duration.seconds(10),
                retries=4,
                start_period=Duration.seconds(180),  # the database's first migration
            ),
        )
        server.add_secret("PREFECT_SERVER_DATABASE_PASSWORD", ecs.Secret.from_secrets_manager(secret, "password"))
        namespace = servicediscovery.PrivateDnsNamespace(self, "Names", name="spaceport.internal", vpc=network.vpc)
        return service(
            self,
            "Server",
            compute,
            network,
            task,
            overlapping=False,  # two servers would both migrate the database
            cloud_map=ecs.CloudMapOptions(name="server", cloud_map_namespace=namespace, dns_ttl=Duration.seconds(10)),
            commands_inside=True,
        )
