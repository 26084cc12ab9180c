"""Accepted findings of cdk-nag and checkov, each with its reason, at the place where the resource is built.

cdk-nag checks every synthesis; checkov reads the templates (`make aws-check`), which contain its exceptions.
"""

import json
from pathlib import Path

from aws_cdk import Acknowledgment, App, CfnResource, Validations
from cdk_nag import AwsSolutionsChecks
from constructs import IConstruct

AWS_KEY = "Encrypted with an AWS key. Our own would cost $1 a month and shut out only users whom IAM shuts out too."
SQS_KEY = "Encrypted by SQS itself (SqsManagedSseEnabled), which the rule does not know."


def acknowledge(construct: IConstruct, reason: str, *rules: str) -> None:
    """Accept these findings of cdk-nag below `construct`, for this reason."""
    for rule in rules:
        Validations.of(construct).acknowledge(Acknowledgment(id=f"AwsSolutions-{rule}", reason=reason))


def excuse(construct: IConstruct, reason: str, *rules: str) -> None:
    """Accept checkov's findings for the resource of this construct, for this reason."""
    resource = construct if isinstance(construct, CfnResource) else construct.node.default_child
    assert isinstance(resource, CfnResource), construct.node.path
    skipped = (resource.get_metadata("checkov") or {"skip": []})["skip"]
    added = [{"id": f"CKV_AWS_{rule}", "comment": reason} for rule in rules]
    resource.add_metadata("checkov", {"skip": [*skipped, *added]})


def check_with_nag(app: App) -> None:
    """Let synthesis fail on findings that are not acknowledged."""
    Validations.of(app).add_plugins(AwsSolutionsChecks(app, verbose=True))


def findings(assembly: Path) -> list[str]:
    """Return the findings in an assembly, one line for each construct."""
    return [
        f"{violation['ruleName']} {construct['constructPath']}"
        for report in assembly.glob("*validation-report.json")
        for plugin in json.loads(report.read_text(encoding="utf-8"))["pluginReports"]
        for violation in plugin["violations"]
        for construct in violation["violatingConstructs"]
    ]
