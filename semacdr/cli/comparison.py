"""Commands that compare: ``evaluate``, ``tune``, ``compare``, ``ablate``, ``transfer``, ``score``."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import polars as pl
from rich.markup import escape
from rich.table import Table

from semacdr.cli.options import STORE_OPTION
from semacdr.dataset import Protocol, load_dataset
from semacdr.errors import ConfigError
from semacdr.pipeline import Context
from semacdr.progress import Progress
from semacdr.settings import load_settings
from semacdr.store import Artifact, Store
from semacdr.tables import Candidates, FitOn
from semacdr.terminal import open_console

if TYPE_CHECKING:
    from semacdr.comparison import Comparison, Report
    from semacdr.evaluation.task import Setting

SHOWN = {"hr_10": "HR@10", "ndcg_10": "NDCG@10", "mrr": "MRR"}


def setting_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --protocol, --candidates and --fit to a command."""
    options = (
        click.option(
            "--protocol", type=click.Choice([one.value for one in Protocol]), default="gts", show_default=True
        ),
        click.option(
            "--candidates", type=click.Choice([one.value for one in Candidates]), default="full", show_default=True
        ),
        click.option("--fit", type=click.Choice([one.value for one in FitOn]), default="refit", show_default=True),
    )
    for option in reversed(options):
        command = option(command)
    return command


_SEEDS = click.option("--seeds", type=int, default=5, show_default=True, help="How many: of training, and of ties.")
MODEL_OPTION = click.option("--model", default="semacdr", show_default=True, help="A preset, or preset:switch:...")


@click.command()
@click.argument("dataset")
@STORE_OPTION
@click.option(
    "--model", "models", multiple=True, required=True, help="A floor, a preset, or preset:switch; repeatable."
)
@setting_options
@_SEEDS
@click.option("--predictions", type=click.Path(path_type=Path), help="Write each seed's first ranks into this folder.")
def evaluate(  # noqa: PLR0913, PLR0917 (options)
    dataset: str,
    store: str | None,
    models: tuple[str, ...],
    protocol: str,
    candidates: str,
    fit: str,
    seeds: int,
    predictions: Path | None,
) -> None:
    """Train and rank a model on DATASET under a protocol, and publish an `evaluation` artifact.

    Floors: random, popularity, recent-popularity, transitions, title, hybrid, ease. DATASET must be run up to its
    embeddings. The artifact's alias PROTOCOL-CANDIDATES-FIT-MODEL points at it; `current` stays where it is.

    \b
    semacdr evaluate amazon-food-kitchen --model semacdr --model hybrid
    semacdr evaluate amazon-food-kitchen --model semacdr --protocol loo --candidates sampled-999 --fit train
    semacdr evaluate amazon-food-kitchen --model semacdr:no-agnostic --seeds 1
    """
    context = open_context(dataset, store)
    found = _evaluated(context, models, _setting(protocol, candidates, fit), seeds, predictions)
    _print_figures(found)


@click.command()
@click.argument("dataset")
@STORE_OPTION
@click.option("--model", help="A preset, or preset:switch:...  [default: the data set's preset]")
@click.option("--protocol", type=click.Choice([one.value for one in Protocol]), help="[default: the data set's]")
@click.option("--trials", type=int, default=10, show_default=True, help="Configurations to try.")
@click.option(
    "--study",
    type=click.Path(dir_okay=False, path_type=Path),
    help="The study's file.  [default: beside the artifacts]",
)
def tune(
    dataset: str, store: str | None, model: str | None, protocol: str | None, trials: int, study: Path | None
) -> None:
    """Search for hyper-parameters of a model of DATASET on validation; test targets are never read.

    The study keeps every trial, and the next search of the same model goes on with it. Prints the best overrides as a
    line of the data set's TOML; `evaluate --model MODEL:tuned` takes them from the study.
    """
    from semacdr.comparison import row_of, tune_row  # noqa: PLC0415 (torch takes seconds to import)

    context = open_context(dataset, store)
    under = Protocol(protocol) if protocol else context.dataset.split.protocol
    row = row_of(context, model or context.dataset.training.preset, under)
    values = ", ".join(
        f"{key} = {json.dumps(value)}" for key, value in tune_row(context, row, under, trials, study).items()
    )
    click.echo(f"overrides = {{ {values} }}" if values else "overrides = {}  # the preset as it is")


@click.command("compare")
@click.argument("dataset")
@click.argument("evaluations", nargs=-1)
@STORE_OPTION
@MODEL_OPTION
@setting_options
def compare_(
    dataset: str,
    evaluations: tuple[str, ...],
    store: str | None,
    model: str,
    protocol: str,
    candidates: str,
    fit: str,
) -> None:
    """Print a table of DATASET's evaluations of one protocol, and how sure it is that MODEL is better.

    EVALUATIONS are versions or aliases of `evaluation`; none: the newest of every model of the protocol. Intervals and
    p-values are those of a paired bootstrap over users (2,000 samples), corrected by Holm. Results of different
    protocols, candidates, fits or tie rules are refused.
    """
    context = open_context(dataset, store)
    found = find_evaluations(context, evaluations, f"{protocol}-{candidates}-{fit}")
    if not found:
        aliases = context.store.aliases(context.dataset.name, "evaluation")
        raise ConfigError(
            f"compare: no evaluation of {protocol}, {candidates}, {fit}",
            found=", ".join(sorted(aliases)) or f"no evaluation of {context.dataset.name!r}",
            expected=f"an alias {protocol}-{candidates}-{fit}-MODEL",
            do=f"run `semacdr evaluate {dataset} --model {model}` with the same --protocol, --candidates and --fit",
        )
    _print_figures(found)
    _print_comparisons(found, model)


@click.command()
@click.argument("dataset")
@STORE_OPTION
@MODEL_OPTION
@click.option("--switch", "switches", multiple=True, help="One of them; repeatable.  [default: all]")
@setting_options
@_SEEDS
def ablate(  # noqa: PLR0913, PLR0917 (options)
    dataset: str,
    store: str | None,
    model: str,
    switches: tuple[str, ...],
    protocol: str,
    candidates: str,
    fit: str,
    seeds: int,
) -> None:
    """Evaluate MODEL with each part of it switched off, and print what that costs."""
    from semacdr.comparison import CONTROLS, SWITCHES  # noqa: PLC0415 (torch takes seconds to import)

    context = open_context(dataset, store)
    chosen = switches or _possible(context, model, [name for name in SWITCHES if name not in CONTROLS], protocol)
    names = (model, *(f"{model}:{name}" for name in chosen))
    found = _evaluated(context, names, _setting(protocol, candidates, fit), seeds)
    _print_figures(found)
    _print_comparisons(found, model)


def _possible(context: Context, model: str, switches: Sequence[str], protocol: str) -> list[str]:
    """Return the switches that the model can have, and say which go against it."""
    from semacdr.comparison import row_of  # noqa: PLC0415

    row_of(context, model, Protocol(protocol))
    possible, left_out = [], []
    for name in switches:
        try:
            row_of(context, f"{model}:{name}", Protocol(protocol))
        except ConfigError:
            left_out.append(name)
        else:
            possible.append(name)
    if left_out:
        click.echo(f"{model} cannot be switched by {', '.join(left_out)}: `--switch NAME` tells why", err=True)
    return possible


@click.command()
@click.argument("dataset")
@STORE_OPTION
@MODEL_OPTION
@setting_options
@_SEEDS
def transfer(dataset: str, store: str | None, model: str, protocol: str, candidates: str, fit: str, seeds: int) -> None:
    """Report what the other domains' histories give MODEL, whom they harm, and whether it is they that do it.

    Gain and harm are against its target-only twin (MODEL:alone). Controls: the same model asked with the source off,
    with another user's, and with that of a user who shares no item.
    """
    from semacdr.comparison import CONTROLS, transfer_report  # noqa: PLC0415

    context = open_context(dataset, store)
    if len(context.dataset.domains) == 1:
        raise ConfigError(
            f"{context.dataset.name}: nothing can be transferred",
            found=f"one domain, {', '.join(context.dataset.domains)}",
            expected="at least two",
            do="evaluate the model alone: semacdr evaluate",
        )
    names = (model, f"{model}:alone", *(f"{model}:{name}" for name in CONTROLS))
    found = _evaluated(context, names, _setting(protocol, candidates, fit), seeds)
    _print_figures(found)
    for metric in ("hr_10", "ndcg_10"):
        _print_transfer(transfer_report(found, model, metric))


@click.command("score")
@click.argument("dataset")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True, dir_okay=False))
@STORE_OPTION
@click.option("--name", required=True, help="What the model is called in tables.")
@setting_options
def score_(
    dataset: str, files: tuple[Path, ...], store: str | None, name: str, protocol: str, candidates: str, fit: str
) -> None:
    """Score predictions from elsewhere: Parquet FILES of user_id, domain, rank, item_id, one for each seed.

    They are checked first: every target has its ranks, over its own candidates alone. The fit is what you say of them.
    """
    from semacdr.comparison import Predictions, score  # noqa: PLC0415

    context = open_context(dataset, store)
    _print_figures([score(context, Predictions(name, files, _setting(protocol, candidates, fit)))])


def find_evaluations(context: Context, names: Sequence[str], setting: str) -> list[Artifact]:
    """Return the evaluations of these versions or aliases; none named: the newest of every model of the setting."""
    dataset, store = context.dataset.name, context.store
    aliases = sorted(store.aliases(dataset, "evaluation"))
    chosen = names or [alias for alias in aliases if alias.startswith(f"{setting}-")]
    return [store.get(dataset, "evaluation", name) for name in chosen]


def open_context(dataset: str, store: str | None) -> Context:
    """Return what commands work on."""
    settings = load_settings(store=store)
    config = load_dataset(dataset, settings.datasets)
    opened = Store(settings.store, settings.cache)
    return Context(dataset=config, settings=settings, store=opened, progress=Progress())


def _setting(protocol: str, candidates: str, fit: str) -> Setting:
    from semacdr.evaluation.task import Setting  # noqa: PLC0415

    return Setting(Protocol(protocol), Candidates(candidates), FitOn(fit))


def _evaluated(
    context: Context, names: Sequence[str], setting: Setting, seeds: int, predictions: Path | None = None
) -> list[Artifact]:
    from semacdr.comparison import Request, evaluate_row, row_of  # noqa: PLC0415

    rows = [row_of(context, name, setting.protocol) for name in dict.fromkeys(names)]
    return [evaluate_row(context, Request(row, setting, seeds, predictions)) for row in rows]


def _print_figures(evaluations: Sequence[Artifact]) -> None:
    from semacdr.comparison import demand_alike, figures  # noqa: PLC0415

    alike = demand_alike(evaluations)
    console = open_console()
    rows = figures(evaluations).filter(pl.col("metric").is_in(list(SHOWN)))
    domains = rows["domain"].unique(maintain_order=True).to_list()
    table = Table("model", "seeds", *domains, title=", ".join(f"{name} {value}" for name, value in alike.items()))
    for model in rows["model"].unique(maintain_order=True).to_list():
        of_model = rows.filter(pl.col("model") == model)
        cells = [_cell(of_model.filter(pl.col("domain") == domain)) for domain in domains]
        table.add_row(escape(model), str(of_model["seeds"][0]), *cells)
    console.print(table)
    console.print(" / ".join(SHOWN.values()) + ", mean (standard deviation over seeds)")
    warned = {
        one["found"]
        for evaluation in evaluations
        for one in evaluation.manifest.details.get("leaks", [])
        if one["verdict"] != "ok"
    }
    for found in sorted(warned):
        console.print(f"[yellow]leak[/]: {escape(found)}", highlight=False)


def _cell(rows: pl.DataFrame) -> str:
    found = {metric: (mean, std) for metric, mean, std in rows.select("metric", "mean", "std").rows()}
    return " / ".join(
        f"{found[name][0]:.4f}" + ("" if found[name][1] is None else f" ({found[name][1]:.4f})")
        for name in SHOWN
        if name in found
    )


def _print_comparisons(evaluations: Sequence[Artifact], model: str) -> None:
    from semacdr.comparison import compare, per_target  # noqa: PLC0415
    from semacdr.comparison.table import KEYS  # noqa: PLC0415

    console = open_console()
    for metric in ("hr_10", "ndcg_10"):
        values = per_target(evaluations, metric)
        others = [name for name in values.columns if name not in {*KEYS, model}]
        if not others:
            raise ConfigError("compare: nothing to compare with", found=f"only {model}", do="evaluate another model")
        console.print(_comparison_table(compare(values, model, others, metric)))


def _comparison_table(comparisons: Sequence[Comparison]) -> Table:
    first = comparisons[0]
    title = f"{first.model}, macro {SHOWN[first.metric]}, less that of"
    table = Table("model", "difference", "95 % interval", "p", "p (Holm)", title=escape(title))
    for one in comparisons:
        d = one.difference
        interval = f"{d.low:+.4f} to {d.high:+.4f}"
        table.add_row(escape(one.against), f"{d.mean:+.4f}", interval, f"{d.p:.4f}", f"{one.p_holm:.4f}")
    return table


def _print_transfer(report: Report) -> None:
    console = open_console()
    shown = ("group", "targets", "gain", "95 % interval", "helped", "harmed", "by chance")
    table = Table(*shown, title=f"{SHOWN[report.metric]}")
    for one in report.groups:
        d = one.difference
        interval = f"{d.low:+.4f} to {d.high:+.4f}"
        shares = ("" if share is None else f"{share:.2%}" for share in astuple(one.shares))
        table.add_row(one.group, f"{one.num_targets:,}", f"{d.mean:+.4f}", interval, *shares)
    console.print(table)
    console.print(_comparison_table(report.controls))
