"""Services: ECS workers and the set-up before them, the scaler of GPU instances, the watch over runs, the listener."""

from aws_cdk import CfnOutput, Stack
from aws_cdk import aws_ecs as ecs
from aws_cdk import aws_iam as iam
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from deployments.aws.stacks.compute import (
    EC2_GROUP,
    EC2_GROUP_ON_DEMAND,
    INFRASTRUCTURE,
    RUN_LOGS,
    Compute,
    ec2_group_arns,
)
from deployments.aws.stacks.containers import container, service, task_definition
from deployments.aws.stacks.data import RESULTS, UPLOADS, WORKSPACE, Data
from deployments.aws.stacks.network import Network
from deployments.aws.stacks.options import AwsOptions
from deployments.aws.stacks.roles import (
    OBJECTS,
    TASKS,
    allow,
    allow_listing,
    objects_arn,
    region_arn,
    role,
    streams_arn,
)

FAMILIES = "spaceport-run-*"  # of the task definitions that the workers register, see deployments/pools/ecs-*.json
ECS_POOLS = {"ecs-cpu": "spaceport-ecs-cpu", "ecs-gpu": "spaceport-ecs-gpu"}  # as in deployments/plan.py


class Services(Stack):
    """Workers and listener, and the parameter that lists what this account contains."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        options: AwsOptions,
        network: Network,
        data: Data,
        compute: Compute,
        api_url: str,
    ) -> None:
        super().__init__(scope, name, description="Spaceport: ECS workers, S3 listener")
        self._options, self._network, self._data, self._compute = options, network, data, compute
        self._secret_name = "PREFECT_API_KEY" if options.prefect_api_url else "PREFECT_API_AUTH_STRING"
        self._environment = {
            "PREFECT_API_URL": api_url,
            "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "false",
            "SPACEPORT_INFRASTRUCTURE": INFRASTRUCTURE,
            "AWS_DEFAULT_REGION": self.region,
            "DO_NOT_TRACK": "1",
        }
        parameter = ssm.StringParameter(
            self,
            "Infrastructure",
            parameter_name=INFRASTRUCTURE,
            description="What Spaceport's pools, blocks, workers and checks need to know of this account",
            string_value=Stack.of(self).to_json_string(self._infrastructure(api_url)),
        )
        self.worker = self._worker()
        self.listener = self._listener()
        for each in (self.worker, self.listener):
            each.node.add_dependency(parameter)
        CfnOutput(self, "Upload", value=f"aws s3 cp flight.zip s3://{data.uploads_name}/{UPLOADS}/")

    def _infrastructure(self, api_url: str) -> dict[str, object]:
        """Return the fields of deployments/aws/runtime/infrastructure.py; a test compares the two."""
        data, compute, network = self._data, self._compute, self._network
        return {
            "region": self.region,
            "uploads_bucket": data.uploads_name,
            "results_bucket": data.results_name,
            "workspace": f"s3://{data.results_name}/{WORKSPACE}",
            "results": f"s3://{data.results_name}/{RESULTS}",
            "public_url": data.public_url,
            "queue_url": data.queue.queue_url,
            "dead_letters_url": data.dead_letters.queue_url,
            "cluster": compute.cluster.cluster_arn,
            "subnets": network.vpc.select_subnets(subnet_type=network.compute_subnets.subnet_type).subnet_ids,
            "security_groups": [network.groups["Run"].security_group_id],
            "public_addresses": network.public_addresses,
            "cpu_image": compute.cpu_image,
            "gpu_image": compute.gpu_image,
            "execution_role": compute.run_execution_role.role_arn,
            "run_role": compute.run_role.role_arn,
            "train_role": compute.train_role.role_arn,
            "log_group": compute.run_logs.log_group_name,
            "capacity_provider": compute.capacity_providers["first"],
            "capacity_provider_again": compute.capacity_providers["again"],
            "ec2_group": EC2_GROUP,
            "ec2_group_on_demand": EC2_GROUP_ON_DEMAND if self._options.spot else None,
            "max_gpu_instances": self._options.max_gpu_instances,
            "prefect_api_url": api_url,
            "prefect_secret": compute.prefect_secret.secret_arn,
            "prefect_secret_name": self._secret_name,
        }

    def _worker(self) -> ecs.FargateService:
        """Create the workers' service, which first updates pools, blocks and deployments to this version."""
        task = task_definition(self, "Worker", self._compute.execution_role, self._worker_role(), cpu=512, memory=2048)
        setup = self._container(task, "setup", ["python", "-m", "deployments.apply"], essential=False)
        environment = {
            "PREFECT_INTEGRATIONS_AWS_ECS_OBSERVER_SQS_QUEUE_NAME": self._compute.events_queue_name,
            # RunTask briefly answers "no tasks" while a group of instances grows.
            "PREFECT_INTEGRATIONS_AWS_ECS_WORKER_CREATE_TASK_RUN_MAX_ATTEMPTS": "10",
            "PREFECT_WORKER_QUERY_SECONDS": "5",
            "PREFECT_WORKER_HEARTBEAT_SECONDS": "10",
            "PREFECT_WORKER_ENABLE_CANCELLATION": "true",
        }
        for kind, pool in ECS_POOLS.items():
            worker = self._container(
                task,
                f"worker-{kind}",
                ["prefect", "worker", "start", "--pool", pool, "--type", "ecs", "--no-create-pool-if-not-found"],
                environment,
            )
            _after(worker, setup)
        _after(self._container(task, "scaler", ["python", "-m", "deployments.aws.runtime.scaler"]), setup)
        telling = {"SPACEPORT_METRICS": "emf"}
        _after(self._container(task, "watch", ["python", "-m", "deployments.aws.runtime.watch"], telling), setup)
        return service(self, "Worker", self._compute, self._network, task, overlapping=True)

    def _worker_role(self) -> iam.Role:
        compute = self._compute
        made = role(self, "WorkerRole", TASKS, "Spaceport: starts, watches and stops ECS tasks; scales ec2-gpu")
        cluster = {"ArnEquals": {"ecs:cluster": compute.cluster.cluster_arn}}
        allow(
            made,
            "These know no resources: https://docs.aws.amazon.com/service-authorization/latest/reference/"
            "list_amazonelasticcontainerservice.html",
            ["ecs:RegisterTaskDefinition", "ecs:DeregisterTaskDefinition", "ecs:DescribeTaskDefinition"],
            ["*"],
        )
        allow(
            made,
            "Revisions of these families are made as runs start; the condition keeps them to this cluster.",
            ["ecs:RunTask"],
            [region_arn(self, "ecs", f"task-definition/{FAMILIES}")],
            cluster,
        )
        allow(
            made,
            "The ids of tasks are not known beforehand; the condition keeps them to this cluster.",
            ["ecs:StopTask", "ecs:DescribeTasks"],
            [region_arn(self, "ecs", "task/*")],
            cluster,
        )
        allow(
            made,
            "Listing is asked of the cluster, which is no resource of it; the condition keeps it to this one.",
            ["ecs:ListTasks"],
            ["*"],
            cluster,
        )
        allow(
            made,
            "The ids of tasks are not known beforehand; the condition allows it for tasks that are just being started.",
            ["ecs:TagResource"],
            [region_arn(self, "ecs", "task/*")],
            {"StringEquals": {"ecs:CreateAction": "RunTask"}},
        )
        roles = [each.role_arn for each in (compute.run_execution_role, compute.run_role, compute.train_role)]
        allow(made, None, ["iam:PassRole"], roles, {"StringEquals": {"iam:PassedToService": TASKS}})
        allow(
            made,
            None,
            ["sqs:GetQueueUrl", "sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"],
            [compute.events_queue.queue_arn],
        )
        allow(
            made,
            "Streams of this log group: the last lines of tasks that died are shown in the run's log.",
            ["logs:GetLogEvents"],
            [streams_arn(self, RUN_LOGS)],
        )
        allow(made, None, ["ssm:GetParameter"], [region_arn(self, "ssm", f"parameter{INFRASTRUCTURE}")])
        allow(
            made,
            "The id within the ARN of a group is not known beforehand, its name is.",
            ["autoscaling:SetDesiredCapacity", "autoscaling:TerminateInstanceInAutoScalingGroup"],
            ec2_group_arns(self, self._options),
        )
        allow(made, "Describing groups knows no resources.", ["autoscaling:DescribeAutoScalingGroups"], ["*"])
        return made

    def _listener(self) -> ecs.FargateService:
        task = task_definition(
            self, "Listener", self._compute.execution_role, self._listener_role(), cpu=256, memory=1024
        )
        limits = {"SPACEPORT_UPLOAD_LIMITS": self._options.upload_limits}
        self._container(task, "listener", ["python", "-m", "deployments.listener"], limits)
        return service(self, "Listener", self._compute, self._network, task, overlapping=True)

    def _listener_role(self) -> iam.Role:
        """Create a role that takes messages, reads READY.json and results, and writes DONE.json or FAILED.json."""
        data = self._data
        made = role(self, "ListenerRole", TASKS, "Spaceport: S3 listener")
        allow(
            made,
            None,
            ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:ChangeMessageVisibility"],
            [data.queue.queue_arn],
        )
        allow(made, None, ["sqs:SendMessage"], [data.dead_letters.queue_arn])
        allow_listing(made, data.uploads_name, UPLOADS)
        allow(made, OBJECTS, ["s3:GetObject"], [objects_arn(self, data.uploads_name, UPLOADS)])
        signals = [objects_arn(self, data.uploads_name, f"{UPLOADS}/*{name}.json") for name in ("DONE", "FAILED")]
        allow(made, OBJECTS, ["s3:PutObject", "s3:DeleteObject"], signals)
        allow_listing(made, data.results_name, RESULTS)  # otherwise a missing report is a 403
        allow(made, OBJECTS, ["s3:GetObject"], [objects_arn(self, data.results_name, RESULTS)])
        allow(made, None, ["ssm:GetParameter"], [region_arn(self, "ssm", f"parameter{INFRASTRUCTURE}")])
        return made

    def _container(
        self,
        task: ecs.FargateTaskDefinition,
        name: str,
        command: list[str],
        environment: dict[str, str] | None = None,
        *,
        essential: bool = True,
    ) -> ecs.ContainerDefinition:
        return container(
            task,
            name,
            self._compute,
            command,
            {**self._environment, **(environment or {})},
            [self._secret_name],
            essential=essential,
        )


def _after(worker: ecs.ContainerDefinition, setup: ecs.ContainerDefinition) -> None:
    worker.add_container_dependencies(
        ecs.ContainerDependency(container=setup, condition=ecs.ContainerDependencyCondition.SUCCESS)
    )
