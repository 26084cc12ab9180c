"""The CDK app: `python -m deployments.aws.stacks.app`, which the CDK's command line runs (deployments/aws/cdk.json)."""

import sys
from pathlib import Path

from aws_cdk import App, Tags

from deployments.aws.stacks.checks import check_with_nag, findings
from deployments.aws.stacks.compute import Compute
from deployments.aws.stacks.data import Data
from deployments.aws.stacks.monitoring import Monitoring
from deployments.aws.stacks.network import Network
from deployments.aws.stacks.options import AwsOptions
from deployments.aws.stacks.server import Server
from deployments.aws.stacks.services import Services
from tasks.core.errors import SpaceportError

# Bucket policies instead of access lists for the buckets' own access logs.
FLAGS = {"@aws-cdk/aws-s3:serverAccessLogsUseBucketPolicy": True}


def build(app: App) -> None:
    """Add every stack to the app. No stack refers to a particular account or region, or needs a lookup."""
    options = AwsOptions.from_context(app.node.try_get_context)
    network = Network(app, "Spaceport-Network", options)
    data = Data(app, "Spaceport-Data", options)
    compute = Compute(app, "Spaceport-Compute", options, network, data)
    if options.prefect_api_url is None:
        server = Server(app, "Spaceport-Server", network, data, compute, options.keep_days)
        api_url = server.api_url
    else:
        server, api_url = None, options.prefect_api_url
    services = Services(app, "Spaceport-Services", options, network, data, compute, api_url)
    if server is not None:
        services.add_stack_dependency(server)
    Monitoring(app, "Spaceport-Monitoring", options, data, compute, services, server)
    Tags.of(app).add("project", "spaceport")  # for cost reports


def main() -> int:
    """Synthesize into the folder that CDK's command line names. Status 1 with findings, 2 for bad options."""
    app = App(context=FLAGS)
    try:
        build(app)
        check_with_nag(app)
        app.synth()
    except SpaceportError as error:
        print(f"error {error}", file=sys.stderr)
        return error.exit_status
    except RuntimeError as error:  # jsii raises this if the checks failed
        for line in findings(Path(app.outdir)) or [str(error)]:
            print(line, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
