"""Every way to deploy, synthesized in one process, which the tests cut off from the network.

python -m tests.deployments.aws.synthesize FOLDER
"""

import sys
from pathlib import Path
from typing import Any

from aws_cdk import App

from deployments.aws.stacks.app import FLAGS, build
from deployments.aws.stacks.checks import check_with_nag

SECRET = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:prefect-key-AbCdEf"
WAYS: dict[str, dict[str, Any]] = {
    "default": {"email": "somebody@example.org"},
    "other": {
        "private": "true",
        "public_results": "true",
        "spot": "false",
        "gpu_instance_types": "g4dn.xlarge",
        "prefect_api_url": "https://api.prefect.cloud/api/accounts/1/workspaces/2",
        "prefect_api_key_secret": SECRET,
        "gpu_digest": f"sha256:{'0' * 64}",
    },
}

if __name__ == "__main__":
    for way, context in WAYS.items():
        app = App(context={**FLAGS, **context}, outdir=str(Path(sys.argv[1]) / way))
        build(app)
        check_with_nag(app)
        app.synth()
