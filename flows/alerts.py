"""Automations of the Prefect server: who is told what, and runs whose worker is gone.

The webhook's URL comes from ``SEMACDR_ALERT_WEBHOOK`` when the set-up runs, and is kept in a block of the server,
encrypted; it is in no parameter and no log.
"""

from __future__ import annotations

from datetime import timedelta
from uuid import UUID

from prefect.blocks.webhook import Webhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import StateType
from prefect.events.actions import CallWebhook, ChangeFlowRunState
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from pydantic import SecretStr

from flows.pages import GATE_REFUSED

WEBHOOK = "semacdr-alerts"
RUN_EVENT = "prefect.flow-run."
ENDS = frozenset({"Completed", "Failed", "TimedOut", "Cancelled", "Crashed"})
MISSED_HEARTBEATS_S = 120
"""Four of the heartbeats that ``PREFECT_FLOWS_HEARTBEAT_FREQUENCY=30`` asks for (prefect.yaml)."""

_OURS = ResourceSpecification({"prefect.resource.id": "prefect.tag.semacdr", "prefect.resource.role": "tag"})
# Not the run's name: one that has not started has a random one.
_WHICH = "flow.name ~ ' of ' ~ flow_run.parameters.dataset"
_FAILED = _WHICH + " ~ ' is ' ~ flow_run.state.name ~ ': ' ~ flow_run.state.message ~ ' ' ~ (flow_run|ui_url)"
_LATE = _WHICH + " ~ ' is late: no worker took it ' ~ (flow_run|ui_url)"
_REFUSED = "'The gate refused ' ~ event.resource.name ~ ': ' ~ event.payload.gate"


def create_alerts(client: SyncPrefectClient, url: SecretStr) -> None:
    """Create the webhook and the automations that call it: a run failed, the gate refused, a run is late."""
    saved = Webhook(method="POST", url=url).save(WEBHOOK, overwrite=True)
    assert isinstance(saved, UUID)  # a coroutine only within an event loop
    failures = {RUN_EVENT + state for state in ("Failed", "TimedOut", "Crashed")}
    _replace(client, _alert("semacdr: a run failed", failures, _FAILED, saved))
    _replace(client, _alert("semacdr: a run is late", {RUN_EVENT + "Late"}, _LATE, saved))
    _replace(client, _alert("semacdr: the gate refused", {GATE_REFUSED}, _REFUSED, saved))


def create_rescue(client: SyncPrefectClient) -> None:
    """Create the automation that marks a run as crashed when it has not been heard of: its worker is gone."""
    heartbeat = RUN_EVENT + "heartbeat"
    trigger = EventTrigger(
        after={heartbeat, RUN_EVENT + "Running"},
        expect={heartbeat, *(RUN_EVENT + state for state in ENDS)},
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=_OURS,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=MISSED_HEARTBEATS_S),
    )
    message = f"no heartbeat for {MISSED_HEARTBEATS_S} s: its worker is gone. A new run goes on where it was."
    action = ChangeFlowRunState(state=StateType.CRASHED, name="Crashed", message=message)
    _replace(client, AutomationCore(name="semacdr: a run is lost", trigger=trigger, actions=[action]))


def _alert(name: str, events: set[str], expression: str, webhook: UUID) -> AutomationCore:
    # Slack and Mattermost read "text". A message has line ends and quotes, hence tojson.
    payload = f'{{"title": "{name}", "text": {{{{ ({expression})|tojson }}}}}}'
    runs = {} if GATE_REFUSED in events else {"match_related": _OURS}
    trigger = EventTrigger(expect=events, posture=Posture.Reactive, threshold=1, within=timedelta(0), **runs)
    action = CallWebhook(block_document_id=webhook, payload=payload)
    return AutomationCore(name=name, trigger=trigger, actions=[action])


def _replace(client: SyncPrefectClient, automation: AutomationCore) -> None:
    known = client.read_automations_by_name(automation.name)
    if known:
        client.update_automation(known[0].id, automation)
    else:
        client.create_automation(automation)
