"""Monitoring: dashboard, alarms with an action, and a budget."""

from aws_cdk import Duration, Stack
from aws_cdk import aws_budgets as budgets
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from deployments.aws.stacks.compute import Compute
from deployments.aws.stacks.data import Data
from deployments.aws.stacks.options import AwsOptions
from deployments.aws.stacks.server import Server
from deployments.aws.stacks.services import Services
from tasks.core.stages import PARTS, STAGES

NAMESPACE = "Spaceport"  # of the metrics that tasks/reporting/metrics.py writes
FIVE_MINUTES, HOUR = Duration.minutes(5), Duration.hours(1)
SERVICES = ("cloudwatch.amazonaws.com", "budgets.amazonaws.com")
IDLE_HOURS = 3
COMPUTING = (*STAGES, *PARTS)  # what writes metrics of its own


class Monitoring(Stack):
    """One topic for all alarms, one dashboard, one budget."""

    def __init__(
        self,
        scope: Construct,
        name: str,
        options: AwsOptions,
        data: Data,
        compute: Compute,
        services: Services,
        server: Server | None,
    ) -> None:
        super().__init__(scope, name, description="Spaceport: dashboard, alarms, budget")
        self._data, self._compute, self._services, self._server = data, compute, services, server
        self.topic = self._topic(options)
        self._alarms()
        self._dashboard()
        self._budget(options)

    def _topic(self, options: AwsOptions) -> sns.Topic:
        key = kms.Key(self, "TopicKey", description="Spaceport alarms", enable_key_rotation=True)
        for service in SERVICES:  # a service that publishes to an encrypted topic needs permission to use its key
            key.add_to_resource_policy(
                iam.PolicyStatement(
                    principals=[iam.ServicePrincipal(service)],
                    actions=["kms:Decrypt", "kms:GenerateDataKey*"],
                    resources=["*"],  # in a key's policy: this key
                    conditions={"StringEquals": {"aws:SourceAccount": self.account}},
                )
            )
        topic = sns.Topic(self, "Alarms", display_name="Spaceport", master_key=key, enforce_ssl=True)
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                principals=[iam.ServicePrincipal(service) for service in SERVICES],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": self.account}},
            )
        )
        if options.email is not None:
            topic.add_subscription(subscriptions.EmailSubscription(options.email))
        return topic

    def _alarms(self) -> None:
        queue, dead = self._data.queue, self._data.dead_letters
        self._alarm(
            "RejectedUploads",
            dead.metric_approximate_number_of_messages_visible(period=FIVE_MINUTES, statistic="Maximum"),
            1,
            "Messages that are no uploads, or that failed five times, lie in the dead letters; each says why.",
        )
        self._alarm(
            "UploadsWait",
            queue.metric_approximate_age_of_oldest_message(period=FIVE_MINUTES, statistic="Maximum"),
            1800,
            "An upload has waited for half an hour: does the listener run, and the Prefect server?",
        )
        self._alarm(
            "FailedRuns", _spaceport("RunsFailed", HOUR, "Sum"), 1, "A run has failed or crashed in the last hour."
        )
        for use, group in self._compute.groups.items():
            self._alarm(
                f"IdleGpu-{use.replace(', ', '-').replace(' ', '-')}",
                _idle(group.auto_scaling_group_name),
                1,
                f"{use}: instances ran for {IDLE_HOURS} hours in which no training ended or wrote a metric.",
                periods=IDLE_HOURS,
            )
        for name, service in self._running().items():
            self._alarm(
                f"{name}Gone",
                cloudwatch.Metric(
                    namespace="ECS/ContainerInsights",
                    metric_name="RunningTaskCount",
                    dimensions_map={
                        "ClusterName": self._compute.cluster.cluster_name,
                        "ServiceName": service,
                    },
                    period=FIVE_MINUTES,
                    statistic="Maximum",
                ),
                1,
                f"The {name.lower()} has not run for 15 minutes.",
                periods=3,
                below=True,
            )
        if self._server is not None:
            self._alarm(
                "DatabaseFull",
                self._server.database.metric_free_storage_space(period=FIVE_MINUTES, statistic="Minimum"),
                2 * 2**30,
                "Less than 2 GiB are free in Prefect's database.",
                below=True,
            )

    def _running(self) -> dict[str, str]:
        found = {"Worker": self._services.worker.service_name, "Listener": self._services.listener.service_name}
        return found | ({} if self._server is None else {"Server": self._server.service.service_name})

    def _alarm(
        self,
        name: str,
        metric: cloudwatch.IMetric,
        threshold: float,
        says: str,
        *,
        periods: int = 1,
        below: bool = False,
    ) -> None:
        """`below`: missing data counts as a dead service; for other alarms, missing data is good."""
        comparisons = cloudwatch.ComparisonOperator
        alarm = cloudwatch.Alarm(
            self,
            name,
            metric=metric,
            threshold=threshold,
            evaluation_periods=periods,
            alarm_description=says,
            comparison_operator=comparisons.LESS_THAN_THRESHOLD
            if below
            else comparisons.GREATER_THAN_OR_EQUAL_TO_THRESHOLD,
            treat_missing_data=cloudwatch.TreatMissingData.BREACHING
            if below
            else cloudwatch.TreatMissingData.NOT_BREACHING,
        )
        action = actions.SnsAction(self.topic)
        alarm.add_alarm_action(action)
        alarm.add_ok_action(action)

    def _dashboard(self) -> None:
        queue, dead = self._data.queue, self._data.dead_letters
        rows = [
            [
                _graph(
                    "Runs that ended, an hour",
                    [_spaceport(name, HOUR, "Sum") for name in ("RunsCompleted", "RunsFailed")],
                ),
                _graph(
                    "Cost, $ an hour", [_of_stage("CostUsd", stage, HOUR, "Sum") for stage in COMPUTING], stacked=True
                ),
                _graph(
                    "Held-out PSNR, dB", [_of_stage("PsnrDb", "train", HOUR, each) for each in ("Minimum", "Average")]
                ),
            ],
            [
                _graph("Seconds of a stage", [_of_stage("Seconds", stage, HOUR, "Average") for stage in COMPUTING]),
                _graph("Gaussians", [_of_stage("Gaussians", "train", HOUR, "Average")]),
                _graph("Bytes of results", [_of_stage("SogBytes", "compress", HOUR, "Average")]),
            ],
            [
                _graph("GPU in use, %", [_of_stage("GpuUtilisation", "train", FIVE_MINUTES, "Average")]),
                _graph(
                    "Peak memory, bytes", [_of_stage("PeakMemoryBytes", stage, HOUR, "Maximum") for stage in COMPUTING]
                ),
                _graph("GPU memory, bytes", [_of_stage("GpuMemoryBytes", "train", HOUR, "Maximum")]),
            ],
            [
                _graph("Oldest upload in the queue, s", [queue.metric_approximate_age_of_oldest_message()]),
                _graph(
                    "Messages",
                    [
                        queue.metric_approximate_number_of_messages_visible(),
                        dead.metric_approximate_number_of_messages_visible(),
                    ],
                ),
                _graph(
                    "GPU instances",
                    [_instances(group.auto_scaling_group_name, use) for use, group in self._compute.groups.items()],
                ),
            ],
        ]
        cloudwatch.Dashboard(self, "Dashboard", dashboard_name="Spaceport", widgets=rows)

    def _budget(self, options: AwsOptions) -> None:
        """Create a monthly budget of the account, which notifies at 80 % and if the forecast exceeds it."""
        subscribers = [budgets.CfnBudget.SubscriberProperty(subscription_type="SNS", address=self.topic.topic_arn)]
        budgets.CfnBudget(
            self,
            "Budget",
            budget=budgets.CfnBudget.BudgetDataProperty(
                budget_type="COST",
                time_unit="MONTHLY",
                budget_limit=budgets.CfnBudget.SpendProperty(amount=options.monthly_budget_usd, unit="USD"),
            ),
            notifications_with_subscribers=[
                budgets.CfnBudget.NotificationWithSubscribersProperty(
                    notification=budgets.CfnBudget.NotificationProperty(
                        notification_type=kind, comparison_operator="GREATER_THAN", threshold=percent
                    ),
                    subscribers=subscribers,
                )
                for kind, percent in (("ACTUAL", 80), ("FORECASTED", 100))
            ],
        )


def _spaceport(metric: str, period: Duration, statistic: str) -> cloudwatch.Metric:
    return cloudwatch.Metric(namespace=NAMESPACE, metric_name=metric, period=period, statistic=statistic)


def _of_stage(metric: str, stage: str, period: Duration, statistic: str) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace=NAMESPACE,
        metric_name=metric,
        dimensions_map={"Stage": stage},
        period=period,
        statistic=statistic,
        label=f"{stage} {statistic.lower()}",
    )


def _instances(group: str, label: str) -> cloudwatch.Metric:
    return cloudwatch.Metric(
        namespace="AWS/AutoScaling",
        metric_name="GroupInServiceInstances",
        dimensions_map={"AutoScalingGroupName": group},
        period=FIVE_MINUTES,
        statistic="Maximum",
        label=label,
    )


def _idle(group: str) -> cloudwatch.MathExpression:
    """Return a metric that is 1 for an hour with instances all the time and no training that reported its GPU usage."""
    instances = cloudwatch.Metric(
        namespace="AWS/AutoScaling",
        metric_name="GroupInServiceInstances",
        dimensions_map={"AutoScalingGroupName": group},
        period=HOUR,
        statistic="Minimum",
    )
    heard = _of_stage("GpuUtilisation", "train", HOUR, "SampleCount")
    return cloudwatch.MathExpression(
        expression="IF(FILL(instances, 0) >= 1 AND FILL(heard, 0) < 1, 1, 0)",
        using_metrics={"instances": instances, "heard": heard},
        period=HOUR,
        label="idle",
    )


def _graph(title: str, metrics: list[cloudwatch.IMetric], *, stacked: bool = False) -> cloudwatch.GraphWidget:
    return cloudwatch.GraphWidget(title=title, left=metrics, stacked=stacked, width=8, height=6)
