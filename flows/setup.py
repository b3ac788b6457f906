"""What the deployments need on the Prefect server: work pools, concurrency limits, automations. Run by ``make deploy``.

``python -m flows.setup`` looks at ``prefect.yaml`` first, then creates what is missing on the server of
``PREFECT_API_URL``. Pools and limits that are there stay as they are.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import click
import httpx
import yaml
from prefect import __version__ as prefect_version
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL
from pydantic import SecretStr

from flows.alerts import create_alerts, create_rescue
from flows.limits import GPU, create_limit
from semacdr.errors import ConfigError, SemacdrError, close_names

PREFECT_YAML = Path("prefect.yaml")
ALERT_WEBHOOK = "SEMACDR_ALERT_WEBHOOK"
_VARIABLE = re.compile(r"\{\{ \$(\w+) \}\}")
"""As Prefect's own templates write a variable of the environment."""


def main() -> None:
    """Set the server up; exits with 2 and one message when something is wrong."""
    try:
        deployments = read_deployments(PREFECT_YAML)
        with open_server() as client:
            set_up(client, deployments, SecretStr(os.environ.get(ALERT_WEBHOOK, "")))
    except SemacdrError as error:
        click.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(error.exit_code)


def set_up(client: SyncPrefectClient, deployments: list[dict[str, Any]], webhook: SecretStr) -> None:
    """Create work pools, the GPU's limit and the automations; alerts only if there is a webhook to call."""
    for pool in sorted({deployment["work_pool"]["name"] for deployment in deployments}):
        try:
            client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
            click.echo(f"created work pool {pool}")
        except ObjectAlreadyExists:
            click.echo(f"work pool {pool} is there")
    create_limit(client, GPU)
    create_rescue(client)
    if webhook.get_secret_value():
        create_alerts(client, webhook)
    else:
        click.echo(f"no alerts: {ALERT_WEBHOOK} names no webhook")


def read_deployments(path: Path) -> list[dict[str, Any]]:
    """Return the deployments of a ``prefect.yaml``.

    Raises:
        ConfigError: a deployment names no work pool, or a schedule has an unknown time zone.
    """
    text = _VARIABLE.sub(lambda found: os.environ.get(found[1], ""), path.read_text(encoding="utf-8"))
    deployments: list[dict[str, Any]] = yaml.safe_load(text)["deployments"]
    for deployment in deployments:
        if not (deployment.get("work_pool") or {}).get("name"):
            raise ConfigError(
                f"{path}, deployment {deployment['name']}: no work pool",
                expected="work_pool.name",
                do="name one (or set SEMACDR_GPU_POOL, which does); `make deploy` creates it",
            )
        for schedule in deployment.get("schedules", ()):
            if (zone := schedule.get("timezone", "UTC")) not in available_timezones():
                raise ConfigError(
                    f"{path}, deployment {deployment['name']}: no time zone {zone!r}",
                    expected=f"an IANA name such as Europe/Berlin; {close_names(zone, available_timezones())}",
                    do="mend the schedule's timezone",
                )
    return deployments


@contextmanager
def open_server() -> Iterator[SyncPrefectClient]:
    """Open a client of the server that ``PREFECT_API_URL`` names.

    Raises:
        ConfigError: it names none, nobody answers, or the server is of another version.
    """
    url = PREFECT_API_URL.value()
    start = "start one (`prefect server start --background`) and set PREFECT_API_URL=http://127.0.0.1:4200/api"
    if not url:
        raise ConfigError("PREFECT_API_URL names no Prefect server", do=start)
    with get_client(sync_client=True) as client:
        _check_server(client, url, start)
        yield client


def _check_server(client: SyncPrefectClient, url: str, start: str) -> None:
    try:
        found = client.api_version()
    except (httpx.HTTPError, PrefectHTTPStatusError, json.JSONDecodeError) as error:
        if isinstance(error, PrefectHTTPStatusError) and error.response.status_code == httpx.codes.UNAUTHORIZED:
            raise ConfigError(
                f"the Prefect server at {url} asks who calls",
                do="set PREFECT_API_AUTH_STRING=user:password, or PREFECT_API_KEY for Prefect Cloud",
            ) from error
        raise ConfigError(
            f"no Prefect server answers at {url}", found=error, expected="a URL that ends with /api", do=start
        ) from error
    if found.split(".")[:2] != prefect_version.split(".")[:2]:
        raise ConfigError(
            f"the Prefect server at {url} is of another version",
            found=found,
            expected=prefect_version,
            do="upgrade the server to the version of requirements/cpu.lock, or use that of another server",
        )


if __name__ == "__main__":
    main()
