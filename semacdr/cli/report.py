"""The command ``report``: the page about evaluations."""

from __future__ import annotations

import click

from semacdr.cli.comparison import MODEL_OPTION, find_evaluations, open_context, setting_options
from semacdr.cli.options import STORE_OPTION
from semacdr.errors import ConfigError
from semacdr.pipeline import find_stage, run_stage
from semacdr.report import page_of
from semacdr.terminal import open_console


@click.command()
@click.argument("dataset")
@click.argument("evaluations", nargs=-1)
@STORE_OPTION
@MODEL_OPTION
@setting_options
def report(
    dataset: str,
    evaluations: tuple[str, ...],
    store: str | None,
    model: str,
    protocol: str,
    candidates: str,
    fit: str,
) -> None:
    """Write one HTML file about DATASET's evaluations of a protocol, and print where it lies.

    EVALUATIONS are versions or aliases of `evaluation`; none: the newest of every model of the protocol, as in
    `compare`; none of those either: the last run's own evaluation. The page needs no network. Curves, maps, gates and
    users are those of the last run; the transfer report is there when MODEL's is (`semacdr transfer`).

    \b
    semacdr report amazon-food-kitchen
    semacdr report amazon-food-kitchen --protocol loo --candidates sampled-999 --fit train
    """
    from semacdr.comparison import report_on  # noqa: PLC0415 (torch takes seconds to import)

    context = open_context(dataset, store)
    found = find_evaluations(context, evaluations, f"{protocol}-{candidates}-{fit}")
    if found:
        made = report_on(context, found, model)
    else:
        own = context.store.get(context.dataset.name, "evaluation").manifest.details
        if (own["protocol"], own["candidates"], own["fit"]) != (protocol, candidates, fit):
            raise ConfigError(
                f"report: no evaluation of {protocol}, {candidates}, {fit}",
                found=f"the last run's, of {own['protocol']}, {own['candidates']}, {own['fit']}",
                do=f"run `semacdr evaluate {dataset} --model {model}` with the same --protocol, --candidates and --fit",
            )
        made = run_stage(find_stage("report"), context)["report"]
    open_console().print(f"{made.reference}: {page_of(context.store, made)}", highlight=False, soft_wrap=True)
