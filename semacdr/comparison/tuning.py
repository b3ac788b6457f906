"""Rows under one search budget: studies of a row's hyper-parameters, and the row ``NAME:tuned`` that stands on one."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from semacdr.comparison.inputs import MODEL_INPUTS, prepare
from semacdr.comparison.rows import SWITCHES, TUNED, Row, Source, find_row
from semacdr.dataset import Protocol, Training
from semacdr.errors import ConfigError
from semacdr.manifest import fingerprint
from semacdr.pipeline import Context
from semacdr.store.names import STUDIES
from semacdr.training import Compute, Run

_AT_TEST = [
    name for name, switch in SWITCHES.items() if switch.source in (Source.OFF, Source.SHUFFLED, Source.UNRELATED)
]


def row_of(context: Context, name: str, protocol: Protocol) -> Row:
    """Return the row of a name, over the data set's own overrides if it is of the data set's preset.

    ``tuned`` among the switches: with what the study of the row that stands before it found best under the protocol;
    switches behind it go over that (``X:tuned:alone`` is the twin of ``X:tuned``, ``X:alone:tuned`` has its own study).

    Raises:
        ConfigError: nothing is called that, or there is no such study.
    """
    own, parts = context.dataset.training, name.split(":")
    overrides = dict(own.overrides) if parts[0] == own.preset else {}
    base = find_row(":".join([parts[0], *(part for part in parts[1:] if part != TUNED)]), overrides)
    if TUNED not in parts[1:]:
        return base
    if base.preset is None:
        raise ConfigError(
            f"{name}: a floor has no study", do=f"ask for {base.name}: its values are chosen on validation"
        )
    before = ":".join(parts[: parts.index(TUNED)])
    from semacdr.training.search import Study  # noqa: PLC0415 (Optuna takes a while to import)

    asked_of = find_row(_tuned_as(before), overrides)
    file = study_file(context, asked_of, protocol)
    best = Study(file, asked_of.name).best_overrides(asked_of.overrides)
    if best is None:
        asked = "" if protocol is context.dataset.split.protocol else f" --protocol {protocol}"
        raise ConfigError(
            f"{name}: {asked_of.name} has not been tuned",
            found=f"no trial over its overrides of today in {file}",
            do=f"run `semacdr tune {context.dataset.name} --model {asked_of.name}{asked}` first",
        )
    return replace(base, name=name, overrides={**best, **base.overrides})


def _tuned_as(name: str) -> str:
    """The row whose study stands for a row: a control that changes histories at test asks the very model."""
    return ":".join(part for part in name.split(":") if part not in _AT_TEST)


def study_file(context: Context, row: Row, protocol: Protocol) -> Path:
    """Return where the study of a row lies: beside the artifacts, or in the cache if those are on S3."""
    settings = context.settings
    beside = settings.cache if settings.store.startswith("s3://") else Path(settings.store)
    return beside / STUDIES / f"{context.dataset.name}-{protocol}-{row.slug}.log"


def tune_row(context: Context, row: Row, protocol: Protocol, trials: int, study: Path | None = None) -> dict[str, Any]:
    """Search for a row's hyper-parameters on validation, in its study or in another file; test is never read.

    Returns:
        The overrides of the best trial so far, those of the row's switches among them.

    Raises:
        ConfigError: a floor, a control that differs at test alone, or no trial at all.
        DataError: nothing to train on or to validate with, or a leak.
    """
    from semacdr.training.search import Study, search  # noqa: PLC0415 (Optuna takes a while to import)

    if row.preset is None:
        raise ConfigError(f"tune: {row.name} is a floor", do="evaluate it: its values are chosen on validation")
    if (model := _tuned_as(row.name)) != row.name:
        raise ConfigError(f"tune: {row.name} is trained as {model} is", found="a control at test", do=f"tune {model}")
    settings, dataset = context.settings, context.dataset.name
    compute = Compute.of(settings.device, bfloat16=settings.bfloat16, compiled=settings.compile)
    inputs = {name: context.store.get(dataset, name) for name in MODEL_INPUTS}
    searched_on = {name: artifact.manifest.fingerprint for name, artifact in inputs.items()}
    searched_on |= {"protocol": protocol.value, "seed": str(context.dataset.training.seed)}
    with tempfile.TemporaryDirectory(prefix="semacdr-tune-") as folder:
        prepared = prepare(context, inputs, row, protocol, Path(folder))
        config = Training(preset=row.preset, overrides=dict(row.overrides), seed=context.dataset.training.seed)
        return search(
            config,
            prepared.split,
            prepared.folders,
            Study(study or study_file(context, row, protocol), row.name, fingerprint(searched_on)[:16]),
            Run(settings.threads, compute=compute),
            context.progress,
            trials,
        )
