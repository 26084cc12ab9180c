"""Automations of the server: crash runs whose process has died, cancel runs that hang, send messages about ended runs.

`python -m deployments.automations` prints the ones without a block, for `prefect automation create --from-file`.
"""

import json
from datetime import timedelta
from urllib.parse import urlsplit

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import ChangeFlowRunState, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification

from deployments.blocks import apply_notification_block
from deployments.plan import Plan
from tasks.core.stages import PARTS, STAGES
from tasks.running.settings import HEARTBEAT_SECONDS

SILENCE_SECONDS = 3 * HEARTBEAT_SECONDS + 10  # two heartbeats may be lost, for example while the server restarts
UNSTARTED_SECONDS = 900  # a machine that has to be rented first takes minutes to start a run
# A process that hangs in a driver or in native code still sends heartbeats, so its run time is limited. A user's own
# machine may be slow and train for days; an account's machines have a known size and cost money by the hour.
STAGE_HOURS, AWS_STAGE_HOURS = 7 * 24, 24
RUN_HOURS = 14 * 24  # of a whole run, including its waits in queues
PENDING, RUNNING = "prefect.flow-run.Pending", "prefect.flow-run.Running"
HEARTBEAT = "prefect.flow-run.heartbeat"
# After these a run sends no more heartbeats.
ENDS = {f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed", "Paused", "Suspended")}
# Nor after these, until a worker starts the run again: a spot instance that is reclaimed puts its run back.
WAITS = {f"prefect.flow-run.{state}" for state in ("Scheduled", "AwaitingRetry")}
TAG = "spaceport"  # of every run of ours: from its deployment, from the stage's parent or from the terminal
ZOMBIES = "Spaceport: crash runs whose process has died"
UNSTARTED = "Spaceport: crash runs that their worker did not start"
HUNG_STAGE = "Spaceport: cancel stages that never end"
HUNG_RUN = "Spaceport: cancel runs that never end"
FAILED = "Spaceport: send a message when a run fails"
DONE = "Spaceport: send a message when a run is done"
FORMER_NAMES = (  # of earlier releases
    "Spaceport: a run whose process is gone has crashed",
    "Spaceport: a stage that never ends is cancelled",
    "Spaceport: a run that never ends is cancelled",
    "Spaceport: a run whose worker died before it started it has crashed",
    "Spaceport: tell that a run has failed",
    "Spaceport: tell that a run is done",
)
BODY = (
    "{{ flow_run.name }}: {{ flow_run.state.name }}"
    "{% if flow_run.state.message %} – {{ flow_run.state.message }}{% endif %}\n{{ flow_run | ui_url }}"
)


async def apply_automations(client: PrefectClient, plan: Plan) -> list[str]:
    """Create or correct our automations, by name. Without a URL to notify, none sends messages. Returns changes."""
    changes = [change for automation in always(plan) for change in await _apply(client, automation)]
    changes += [change for name in FORMER_NAMES for change in await _remove(client, name)]
    if plan.notify is None:
        return changes + [change for name in (FAILED, DONE) for change in await _remove(client, name)]
    block_id, block_changes = await apply_notification_block(client, plan.notify)
    changes += block_changes
    for name, states, subject in ((FAILED, {"Failed", "Crashed"}, "failed"), (DONE, {"Completed"}, "done")):
        notification = SendNotification(
            block_document_id=block_id, subject=f"Spaceport: {{{{ flow_run.name }}}} {subject}", body=BODY
        )
        trigger = _trigger(("reconstruct",), expect={f"prefect.flow-run.{state}" for state in states})
        description = f"Posts JSON with `text` and `subject` to {_host(plan.notify)} when `reconstruct` is {subject}."
        wanted = AutomationCore(name=name, description=description, trigger=trigger, actions=[notification])
        changes += await _apply(client, wanted)
    return changes


def always(plan: Plan | None = None) -> tuple[AutomationCore, ...]:
    """Return the automations that need no block; without a plan, those for a user's own machines."""
    hours = STAGE_HOURS if plan is None or plan.infrastructure is None else AWS_STAGE_HOURS
    return (
        zombies(),
        unstarted(),
        hung(HUNG_STAGE, (*STAGES, *PARTS), hours),
        hung(HUNG_RUN, ("reconstruct",), RUN_HOURS),
    )


def zombies() -> AutomationCore:
    """Crash a run that has started and then neither ends nor sends a heartbeat."""
    # RUNNING comes from the server itself; a process that is killed immediately has sent no heartbeat.
    return _crash_of_silence(
        ZOMBIES,
        f"A run that has sent no heartbeat for {SILENCE_SECONDS} s becomes Crashed, so that it holds no slot.",
        {RUNNING, HEARTBEAT},
        {HEARTBEAT, PENDING, *ENDS, *WAITS},
        SILENCE_SECONDS,
        f"Nothing was heard of this run for {SILENCE_SECONDS} s: its process or its machine is gone.",
    )


def unstarted() -> AutomationCore:
    """Crash a run that a worker took but did not start: it would hold its queue's slot forever."""
    return _crash_of_silence(
        UNSTARTED,
        f"A run that a worker took and did not start within {UNSTARTED_SECONDS / 60:.0f} minutes becomes Crashed, so "
        "that it holds no slot.",
        {PENDING},
        {RUNNING, HEARTBEAT, "prefect.flow-run.Cancelling", *ENDS, *WAITS},
        UNSTARTED_SECONDS,
        f"A worker took this run but did not start it within {UNSTARTED_SECONDS / 60:.0f} minutes.",
    )


def hung(name: str, flows: tuple[str, ...], hours: float) -> AutomationCore:
    """Cancel a run that takes longer than any real run. Its worker then ends the process or the task."""
    trigger = _unless_heard(flows, {RUNNING}, {"prefect.flow-run.Cancelling", *ENDS, *WAITS}, timedelta(hours=hours))
    message = f"This run was at work for {hours:g} hours: it hangs, and is ended."
    return AutomationCore(
        name=name,
        description=f"A run of {', '.join(flows)} that works for {hours:g} hours is cancelled; its worker ends it.",
        trigger=trigger,
        actions=[ChangeFlowRunState(state=StateType.CANCELLING, message=message)],
    )


def _crash_of_silence(
    name: str, description: str, after: set[str], expect: set[str], seconds: int, message: str
) -> AutomationCore:
    trigger = _unless_heard(("reconstruct", *STAGES, *PARTS), after, expect, timedelta(seconds=seconds))
    return AutomationCore(
        name=name,
        description=description,
        trigger=trigger,
        actions=[ChangeFlowRunState(state=StateType.CRASHED, message=message)],
    )


def _host(url: str) -> str:
    """Return the host of a URL to notify; the rest may be secret."""
    return urlsplit(url).hostname or "the address"


def _unless_heard(flows: tuple[str, ...], after: set[str], expect: set[str], within: timedelta) -> EventTrigger:
    return _trigger(flows, expect=expect).model_copy(
        update={"after": after, "posture": Posture.Proactive, "within": within}
    )


def _trigger(flows: tuple[str, ...], expect: set[str]) -> EventTrigger:
    """Return a trigger for each run of these flows. Runs without our tag belong to other flows of the same name."""
    return EventTrigger(
        expect=expect,
        match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=[  # all of them have to match
            ResourceSpecification.model_validate(
                {"prefect.resource.role": "flow", "prefect.resource.name": list(flows)}
            ),
            ResourceSpecification.model_validate(
                {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}
            ),
        ],
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )


async def _apply(client: PrefectClient, wanted: AutomationCore) -> list[str]:
    present = await client.read_automations_by_name(wanted.name)
    if not present:
        await client.create_automation(wanted)
        return [f"created automation {wanted.name!r}"]
    fields = set(AutomationCore.model_fields)
    if present[0].model_dump(include=fields) == wanted.model_dump(include=fields):  # not JSON: sets have no order
        return []
    await client.update_automation(present[0].id, wanted)
    return [f"updated automation {wanted.name!r}"]


async def _remove(client: PrefectClient, name: str) -> list[str]:
    present = await client.read_automations_by_name(name)
    for automation in present:
        await client.delete_automation(automation.id)
    return [f"removed automation {name!r}"] if present else []


if __name__ == "__main__":
    print(json.dumps([automation.model_dump(mode="json") for automation in always()], indent=1))
