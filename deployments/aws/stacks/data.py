"""Data that outlives every machine: uploads, results, images, and the queue of uploads that are complete.

This stack refers to no other stack, and the offline tests deploy it unchanged to an emulator.
"""

from aws_cdk import CfnOutput, Duration, RemovalPolicy, Stack
from aws_cdk import aws_cloudfront as cloudfront
from aws_cdk import aws_cloudfront_origins as origins
from aws_cdk import aws_ecr as ecr
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_s3 as s3
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from deployments.aws.stacks.checks import AWS_KEY, SQS_KEY, acknowledge, excuse
from deployments.aws.stacks.options import AwsOptions

UPLOADS, RESULTS, WORKSPACE = "uploads", "results", "workspace"  # prefixes of keys
READY_KEYS = (f"{UPLOADS}/*/READY.json", f"{UPLOADS}/*.zip")
ATTEMPTS = 5  # deliveries of a message before it goes to the dead letters
LOGS_DAYS = 90
PREFIX = "spaceport"  # of names
OWN_LOGS = "The bucket of access logs would log its own logging."


def bucket_name(stack: Stack, use: str) -> str:
    """Return a bucket's name. It must be unique worldwide, so it contains the account's number."""
    return f"{PREFIX}-{use}-{stack.account}-{stack.region}"


class Data(Stack):
    """Buckets, queue and image repositories."""

    def __init__(self, scope: Construct, name: str, options: AwsOptions) -> None:
        super().__init__(scope, name, description="Spaceport: buckets, upload events, image repositories")
        self.uploads_name, self.results_name = bucket_name(self, "uploads"), bucket_name(self, "results")
        self._access_logs = self._bucket(
            "AccessLogs",
            bucket_name(self, "logs"),
            [s3.LifecycleRule(expiration=Duration.days(LOGS_DAYS), id="old-logs")],
            logged=False,
        )
        self.uploads = self._bucket(
            "Uploads",
            self.uploads_name,
            [
                # Processed photos are in the workspace too, but only their owner may decide to delete the originals.
                s3.LifecycleRule(
                    id="cheaper-when-old",
                    transitions=[
                        s3.Transition(
                            storage_class=s3.StorageClass.INTELLIGENT_TIERING, transition_after=Duration.days(30)
                        )
                    ],
                )
            ],
        )
        self.results = self._bucket(
            "Results",
            self.results_name,
            [
                # Current objects below stages/, results/ and runs/ never expire, because a cached result may point to
                # them. Checkpoints expire, because only a training that resumes needs them.
                s3.LifecycleRule(id="checkpoints", prefix=f"{WORKSPACE}/checkpoints/", expiration=Duration.days(14)),
                s3.LifecycleRule(
                    id="cheaper-when-old",
                    prefix=f"{WORKSPACE}/stages/",
                    transitions=[
                        s3.Transition(
                            storage_class=s3.StorageClass.INTELLIGENT_TIERING, transition_after=Duration.days(30)
                        )
                    ],
                ),
            ],
        )
        self._tell_event_bridge(self.uploads)
        self.dead_letters, self.queue = self._queue("Uploads", f"{PREFIX}-uploads")
        self._on_ready()
        self.cpu_repository = self._repository("cpu")
        self.gpu_repository = self._repository("gpu")
        self.public_url = self._publish() if options.public_results else None
        for key, value in {
            "UploadsBucket": self.uploads.bucket_name,
            "ResultsBucket": self.results.bucket_name,
            "QueueUrl": self.queue.queue_url,
            "DeadLettersUrl": self.dead_letters.queue_url,
            "CpuRepository": self.cpu_repository.repository_uri,
            "GpuRepository": self.gpu_repository.repository_uri,
        }.items():
            CfnOutput(self, key, value=value)

    def _bucket(self, name: str, bucket_name: str, rules: list[s3.LifecycleRule], *, logged: bool = True) -> s3.Bucket:
        """Create a private bucket: encrypted, TLS only, versioned. Keeps old versions a week, partial uploads a day."""
        bucket = s3.Bucket(
            self,
            name,
            bucket_name=bucket_name,
            encryption=s3.BucketEncryption.S3_MANAGED,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            versioned=True,
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            removal_policy=RemovalPolicy.RETAIN,
            server_access_logs_bucket=self._access_logs if logged else None,
            server_access_logs_prefix=f"{name.lower()}/" if logged else None,
            lifecycle_rules=[
                s3.LifecycleRule(
                    id="leftovers",
                    abort_incomplete_multipart_upload_after=Duration.days(1),
                    noncurrent_version_expiration=Duration.days(7),
                    expired_object_delete_marker=True,
                ),
                *rules,
            ],
        )
        if not logged:
            acknowledge(bucket, OWN_LOGS, "S1")
            excuse(bucket, OWN_LOGS, "18")
        return bucket

    @staticmethod
    def _tell_event_bridge(bucket: s3.Bucket) -> None:
        """Send events to EventBridge by the bucket's property; CDK's own switch adds a Lambda with wide permissions."""
        resource = bucket.node.default_child
        assert isinstance(resource, s3.CfnBucket)
        resource.add_property_override("NotificationConfiguration.EventBridgeConfiguration.EventBridgeEnabled", True)

    def _queue(self, name: str, queue_name: str) -> tuple[sqs.Queue, sqs.Queue]:
        """Create a queue and its dead-letter queue."""
        dead = sqs.Queue(
            self,
            f"{name}DeadLetters",
            queue_name=f"{queue_name}-dead",
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=Duration.days(14),
        )
        queue = sqs.Queue(
            self,
            f"{name}Queue",
            queue_name=queue_name,
            encryption=sqs.QueueEncryption.SQS_MANAGED,
            enforce_ssl=True,
            retention_period=Duration.days(14),
            visibility_timeout=Duration.seconds(120),  # the listener extends it while it works on a message
            receive_message_wait_time=Duration.seconds(20),
            dead_letter_queue=sqs.DeadLetterQueue(queue=dead, max_receive_count=ATTEMPTS),
        )
        for each in (dead, queue):
            excuse(each, SQS_KEY, "27")
        return dead, queue

    def _on_ready(self) -> None:
        """Send events for READY.json and .zip files, which mark a complete capture, but not for single photos."""
        events.Rule(
            self,
            "Ready",
            description="A capture is complete",
            event_pattern=events.EventPattern(
                source=["aws.s3"],
                detail_type=["Object Created"],
                detail={
                    "bucket": {"name": [self.uploads.bucket_name]},
                    "object": {"key": [{"wildcard": key} for key in READY_KEYS]},
                },
            ),
            targets=[targets.SqsQueue(self.queue, dead_letter_queue=self.dead_letters)],
        )

    def _repository(self, kind: str) -> ecr.Repository:
        """Create a repository with immutable tags and image scans, which keeps the last five untagged images."""
        repository = ecr.Repository(
            self,
            f"{kind.capitalize()}Images",
            repository_name=f"{PREFIX}/{kind}",
            image_tag_mutability=ecr.TagMutability.IMMUTABLE,
            image_scan_on_push=True,
            encryption=ecr.RepositoryEncryption.AES_256,
            removal_policy=RemovalPolicy.RETAIN,
            lifecycle_rules=[
                ecr.LifecycleRule(description="untagged", tag_status=ecr.TagStatus.UNTAGGED, max_image_count=5)
            ],
        )
        excuse(repository, AWS_KEY, "136")
        return repository

    def _publish(self) -> str:
        """Serve results/, and nothing else, publicly over HTTPS; returns the address."""
        distribution = cloudfront.Distribution(
            self,
            "Results-Cdn",
            comment="Spaceport results",
            default_behavior=cloudfront.BehaviorOptions(
                origin=origins.S3BucketOrigin.with_origin_access_control(self.results, origin_path=f"/{RESULTS}"),
                viewer_protocol_policy=cloudfront.ViewerProtocolPolicy.REDIRECT_TO_HTTPS,
                # Results are replaced in place, so a page's files must not be older than the page.
                cache_policy=cloudfront.CachePolicy.CACHING_DISABLED,
                compress=True,
            ),
            minimum_protocol_version=cloudfront.SecurityPolicyProtocol.TLS_V1_2_2021,
            log_bucket=None,
        )
        reason = "An address for results that anybody may see: {}"
        excuse(distribution, reason.format("static files need no firewall for applications."), "68")
        excuse(distribution, reason.format("the bucket's access log has every request."), "86")
        excuse(distribution, reason.format("a certificate of its own needs a domain."), "174")
        acknowledge(distribution, reason.format("no region is shut out."), "CFR1")
        acknowledge(distribution, reason.format("static files need no firewall for applications."), "CFR2")
        acknowledge(distribution, reason.format("the bucket's access log has every request."), "CFR3")
        acknowledge(distribution, reason.format("a certificate of its own needs a domain."), "CFR4")
        return f"https://{distribution.distribution_domain_name}"
