"""Separation of components: roles that can be passed, networks, and folders a container can write to."""

import json
from typing import Any

import pytest

from deployments.aws.stacks.compute import GPU_HOST_LOGS, RUN_LOGS, SERVICE_LOGS
from deployments.aws.stacks.network import API_PORT, CLIENTS, DATABASE_PORT, HTTPS
from tests.deployments.aws.conftest import Templates
from tests.deployments.aws.test_stacks import joined, statements_of

TASK_DEFINITION, LAUNCH_TEMPLATE = "AWS::ECS::TaskDefinition", "AWS::EC2::LaunchTemplate"


def actions_of(statement: dict[str, Any]) -> set[str]:
    action = statement["Action"]
    return {action} if isinstance(action, str) else set(action)


def test_workers_pass_the_roles_of_runs_and_no_other(templates: Templates) -> None:
    passing = [each for each in statements_of(templates, "WorkerRole") if "iam:PassRole" in actions_of(each)]
    assert len(passing) == 1
    assert passing[0]["Condition"] == {"StringEquals": {"iam:PassedToService": "ecs-tasks.amazonaws.com"}}
    passed = json.dumps(passing[0]["Resource"])
    assert len(passing[0]["Resource"]) == 3
    for role in ("RunRole", "TrainRole", "RunExecutionRole"):
        assert f"GetAtt{role}" in passed, role
    others = {
        name.split("/")[1]
        for name, policy in templates.resources("AWS::IAM::Policy").items()
        if "iam:PassRole" in json.dumps(policy) and not name.split("/")[1].startswith("WorkerRole")
    }
    assert not others, "somebody else may pass roles"


def test_the_execution_role_of_runs_is_worth_nothing_to_a_run(templates: Templates) -> None:
    """IAM cannot tell how a role is passed; this one reads what every run is given, and writes to the runs' own log."""
    statements = statements_of(templates, "RunExecutionRole")
    assert {action for each in statements for action in actions_of(each)} == {
        "ecr:GetAuthorizationToken",
        "ecr:BatchCheckLayerAvailability",
        "ecr:GetDownloadUrlForLayer",
        "ecr:BatchGetImage",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
        "secretsmanager:GetSecretValue",
    }
    [secret] = [each["Resource"] for each in statements if "secretsmanager:GetSecretValue" in actions_of(each)]
    assert secret["Ref"].startswith("PrefectAuth")
    [log] = [each["Resource"] for each in statements if "logs:PutLogEvents" in actions_of(each)]
    assert f"log-group:{RUN_LOGS}:*" in joined(log)


def test_the_account_names_the_runs_own_execution_role(templates: Templates) -> None:
    value = json.dumps(templates.properties("AWS::SSM::Parameter")[0]["Value"])
    said = value[value.index("execution_role") :].split("run_role")[0]
    assert "RunExecutionRole" in said


def test_services_and_runs_write_to_logs_of_their_own(templates: Templates) -> None:
    for role, group in (("ExecutionRole", SERVICE_LOGS), ("Ec2WorkerRole", GPU_HOST_LOGS)):
        logs = [each["Resource"] for each in statements_of(templates, role) if "logs:PutLogEvents" in actions_of(each)]
        assert [f"log-group:{group}:*" in joined(each) for each in logs] == [True], role


def test_an_instance_of_workers_may_do_what_a_run_on_it_needs(templates: Templates) -> None:
    """Runs share its role: the workspace, its own group of instances, and what the run is told anyway."""
    statements = statements_of(templates, "Ec2WorkerRole")
    services = {action.partition(":")[0] for each in statements for action in actions_of(each)}
    assert services == {"autoscaling", "ecr", "logs", "s3", "secretsmanager", "ssm"}
    buckets = json.dumps([each["Resource"] for each in statements if "s3:PutObject" in actions_of(each)])
    assert "/workspace/*" in buckets
    assert "uploads" not in buckets


def rules(templates: Templates, direction: str) -> list[dict[str, Any]]:
    """All rules, each with the id of its group under `of`."""
    found = [
        {**rule, "of": name.split("/")[1]}
        for name, group in templates.resources("AWS::EC2::SecurityGroup").items()
        for rule in group["Properties"].get(f"SecurityGroup{direction}", [])
    ]
    apart = templates.properties(f"AWS::EC2::SecurityGroup{direction}")
    return found + [{**rule, "of": rule["GroupId"]["Fn::GetAtt"][0]} for rule in apart]


def name_of(group: Any) -> str:
    """`Worker` of `{"Fn::GetAtt": ["Worker11F36D0F", "GroupId"]}`."""
    reference = group if isinstance(group, str) else group["Fn::GetAtt"][0]
    return str(reference)[:-8]


def test_each_component_has_a_group_and_the_database_lets_in_the_server_alone(templates: Templates) -> None:
    groups = {name_of(name.split("/")[1]) for name in templates.resources("AWS::EC2::SecurityGroup")}
    assert groups == {*CLIENTS, "Server", "Database"}
    ingress = {
        (name_of(rule["SourceSecurityGroupId"]), name_of(rule["of"]), rule["FromPort"], rule["ToPort"])
        for rule in rules(templates, "Ingress")
    }
    assert ingress == {
        ("Server", "Database", DATABASE_PORT, DATABASE_PORT),
        *((name, "Server", API_PORT, API_PORT) for name in CLIENTS),
    }
    [database] = templates.properties("AWS::RDS::DBInstance")
    [group] = database["VPCSecurityGroups"]
    assert "Database" in json.dumps(group)


def test_everybody_calls_https_and_the_server_and_the_database_calls_nobody(templates: Templates) -> None:
    for rule in rules(templates, "Egress"):
        name = name_of(rule["of"])
        if name == "Database":
            assert rule["CidrIp"] == "255.255.255.255/32"
        elif "CidrIp" in rule:
            assert (rule["FromPort"], rule["ToPort"]) == (HTTPS, HTTPS), name
        else:
            to = (name, name_of(rule["DestinationSecurityGroupId"]), rule["ToPort"])
            assert to in {("Server", "Database", DATABASE_PORT), *((each, "Server", API_PORT) for each in CLIENTS)}


def test_services_are_in_their_groups(templates: Templates) -> None:
    services = templates.properties("AWS::ECS::Service")
    found = {
        each["ServiceName"]: json.dumps(each["NetworkConfiguration"]["AwsvpcConfiguration"]["SecurityGroups"])
        for each in services
    }
    for name in ("Server", "Worker", "Listener"):
        assert name in found[f"spaceport-{name.lower()}"]
    for template in templates.properties(LAUNCH_TEMPLATE):
        assert "Gpu" in json.dumps(template["LaunchTemplateData"]["SecurityGroupIds"])


def test_another_server_is_called_on_its_port(other_templates: Templates) -> None:
    """Prefect Cloud: HTTPS, which is open anyway; and nothing is let in at all."""
    assert not rules(other_templates, "Ingress")
    assert {rule["ToPort"] for rule in rules(other_templates, "Egress")} == {HTTPS}


def test_the_way_to_s3_leads_to_our_buckets_alone(templates: Templates) -> None:
    [endpoint] = templates.properties("AWS::EC2::VPCEndpoint")
    statements = endpoint["PolicyDocument"]["Statement"]
    ours = {"StringEquals": {"aws:PrincipalAccount": {"Ref": "AWS::AccountId"}}}
    for statement in statements:
        assert not {action for action in actions_of(statement) if "*" in action}
        for resource in statement["Resource"]:
            bucket = joined(resource).partition(":s3:::")[2]
            if bucket.startswith(("spaceport-uploads-", "spaceport-results-")):
                assert statement["Condition"] == ours
            else:
                assert bucket.startswith(("prod-", "al2023-repos-")), bucket
                assert actions_of(statement) == {"s3:GetObject"}


def containers(templates: Templates) -> list[dict[str, Any]]:
    return [each for task in templates.properties(TASK_DEFINITION) for each in task["ContainerDefinitions"]]


def test_containers_write_to_two_folders_and_have_no_capabilities(templates: Templates) -> None:
    found = containers(templates)
    assert len(found) == 1 + 5 + 1
    for each in found:
        assert each["LinuxParameters"]["Capabilities"] == {"Drop": ["ALL"]}, each["Name"]
        # The agent of sessions, by which people reach the UI, needs to write: AWS says that it does not work without.
        assert each["ReadonlyRootFilesystem"] is (each["Name"] != "server"), each["Name"]
        assert [mount["ContainerPath"] for mount in each["MountPoints"]] == ["/tmp", "/var/lib/spaceport"]
        assert "Privileged" not in each
    shared = [mount["SourceVolume"] for each in found for mount in each["MountPoints"]]
    assert len(shared) == len(set(shared)), "two containers write to the same folder"


def test_nothing_runs_in_the_network_of_its_host(templates: Templates) -> None:
    assert {task["NetworkMode"] for task in templates.properties(TASK_DEFINITION)} == {"awsvpc"}
    scripts = [
        joined(each["LaunchTemplateData"]["UserData"]["Fn::Base64"]) for each in templates.properties(LAUNCH_TEMPLATE)
    ]
    starting = [script for script in scripts if "docker run" in script]
    assert len(starting) == 2
    for script in starting:
        assert "--network" not in script
        for option in ("--read-only", "--cap-drop ALL", "--security-opt no-new-privileges"):
            assert option in script
        assert "--privileged" not in script


def test_instances_of_ecs_take_tasks_that_ask_for_no_new_privileges(templates: Templates) -> None:
    """https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html, dockerSecurityOptions."""
    scripts = [json.dumps(each) for each in templates.properties(LAUNCH_TEMPLATE)]
    agents = [script for script in scripts if "ECS_CLUSTER=" in script]
    assert len(agents) == 2
    assert all("ECS_SELINUX_CAPABLE=true" in script for script in agents)


@pytest.mark.parametrize(("word", "hops"), [("ECS_CLUSTER=", 1), ("docker run", 2)])
def test_tasks_of_ecs_do_not_reach_the_instances_role(templates: Templates, word: str, hops: int) -> None:
    found = [each for each in templates.properties(LAUNCH_TEMPLATE) if word in json.dumps(each)]
    assert len(found) == 2
    for each in found:
        options = each["LaunchTemplateData"]["MetadataOptions"]
        assert options == {"HttpTokens": "required", "HttpPutResponseHopLimit": hops}
