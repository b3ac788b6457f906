"""Every table of the store: its columns, key, row rules and order. The only place where a column is named.

A table is Parquet below its artifact's folder. ``check`` is run on every file before it is published, and
``docs/tables.md`` is made from this file (``make docs``).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import ClassVar

import dataframely as dy
import polars as pl
import pyarrow.parquet as pq
from polars.datatypes import DataTypeClass

from semacdr.dataset import AuditAction
from semacdr.errors import DataError, StoreError, examples


class View(StrEnum):
    """A text about an item: what an expert of its domain says, or who wants it and why, in no domain's words."""

    SPECIFIC = "specific"
    AGNOSTIC = "agnostic"


class TextSource(StrEnum):
    """Who wrote a text: the LLM of a run, an imported file, or nobody: the item's own words."""

    GENERATED = "generated"
    IMPORTED = "imported"
    FALLBACK = "fallback"


class AuditRule(StrEnum):
    """What an LLM's text can be found wanting in; the order is that in which a fallback names its reason."""

    UNANSWERED = "unanswered"
    CUT = "cut"
    SCHEMA = "schema"
    FORM = "form"
    REFUSAL = "refusal"
    REPETITION = "repetition"
    SAME_TEXT = "same_text"
    COPIED_EXAMPLE = "copied_example"
    LANGUAGE = "language"
    PROTECTED_TRAIT = "protected_trait"
    BRAND_LEAK = "brand_leak"
    CATEGORY_LEAK = "category_leak"
    TITLE_LEAK = "title_leak"
    DUPLICATE = "duplicate"
    NEAR_DUPLICATE = "near_duplicate"


class Part(StrEnum):
    """The place of an event in the split."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class FitOn(StrEnum):
    """What a tested model was fitted on; a part of the protocol, for it matters more than most models do."""

    TRAIN = "train"
    """Training events only."""
    REFIT = "refit"
    """Training and validation events, every choice frozen from the fit ``train``."""
    ROLLING = "rolling"
    """The weights of ``refit``; what counts events counts all that lie strictly before a target, as serving does."""

    @property
    def weights(self) -> FitOn:
        """The fit that trained weights come from."""
        return FitOn.REFIT if self is FitOn.ROLLING else self

    @property
    def last_part(self) -> Part:
        """The latest events that weights are fitted on."""
        return Part.TRAIN if self is FitOn.TRAIN else Part.VALIDATION


class Candidates(StrEnum):
    """What a target is ranked among."""

    FULL = "full"
    """Every item of its domain, cold ones included, less the history of a user who never had the target."""
    SAMPLED_999 = "sampled-999"
    """The target and 999 items of its domain that the user never touches; only beside published numbers."""


class Vector(dy.Any):
    """A fixed-size list of finite float32, as wide as the encoder or model makes it."""

    def __init__(self, *, description: str) -> None:
        super().__init__(description=description)
        self.nullable = False

    def validate_dtype(self, dtype: pl.DataType | DataTypeClass) -> bool:
        """Return whether a column's type is a fixed-size list of float32."""
        return isinstance(dtype, pl.Array) and dtype.inner == pl.Float32

    def validation_rules(self, expr: pl.Expr) -> dict[str, pl.Expr]:
        """Return the row rules; a sum is finite when every number is."""
        return super().validation_rules(expr) | {"finite": expr.arr.sum().is_finite()}


class Table(dy.Schema):
    """What all tables have."""

    sort_order: ClassVar[tuple[str, ...]] = ()
    """Columns that each file is sorted by, text by its bytes; empty: no order is promised."""


_USER = "as in the log"
_DOMAIN = "as the data set's TOML names it"
_ITEM = "as in the log; unique within a domain only"
_VIEW = "specific: an expert's words; agnostic: who wants it and why, in no domain's words"


class Interactions(Table):
    """One row per event of a user with an item in one domain."""

    sort_order = ("domain", "user_id", "timestamp_s", "item_id")

    user_id = dy.String(primary_key=True, min_length=1, description=_USER)
    domain = dy.String(primary_key=True, description=_DOMAIN)
    item_id = dy.String(primary_key=True, min_length=1, description=_ITEM)
    timestamp_s = dy.Int64(primary_key=True, description="seconds since 1970-01-01 UTC")
    rating = dy.Float64(nullable=True, description="as in the log; null for implicit feedback")


class Items(Table):
    """One row per item of one domain, in the log or in the item file."""

    sort_order = ("domain", "item_id")

    domain = dy.String(primary_key=True, description=_DOMAIN)
    item_id = dy.String(primary_key=True, min_length=1, description=_ITEM)
    title = dy.String(nullable=True, description="HTML entities decoded, control characters removed")
    brand = dy.String(nullable=True, description="cleaned like the title, as are all texts")
    categories = dy.String(nullable=True, description="joined by ' > '")
    description = dy.String(nullable=True, description="cut where it is very long")
    price = dy.Float64(nullable=True, description="the one amount in the item file's text, in its currency")
    text = dy.String(nullable=True, description="title, brand, categories and description as one text")
    text_hash = dy.String(nullable=True, description="sha256 of text")
    has_metadata = dy.Bool(description="the item file has a record of it")
    has_text = dy.Bool(description="there is text to work with")

    @dy.rule()
    def text_as_marked(cls) -> pl.Expr:  # noqa: N805 (dataframely rules are class methods)
        """``has_text`` tells whether ``text`` is there."""
        return pl.col("has_text") == pl.col("text").is_not_null()


class Rejects(Table):
    """One row per raw record that was not accepted."""

    sort_order = ("table", "domain", "file", "line")

    table = dy.String(description="interactions or items")
    domain = dy.String(description=_DOMAIN)
    file = dy.String(description="path below the data set's folder")
    line = dy.Int64(min=1, description="line of a JSONL file, row of a Parquet file, record of a CSV file")
    reason = dy.String(description="what is wrong with it, in a few words that can be counted")
    record = dy.String(nullable=True, description="the record, cut at 500 characters")


class Sequences(Table):
    """One row per user: all events over all domains, the lists in the order of time, domain, item."""

    sort_order = ("user_id",)

    user_id = dy.String(primary_key=True, min_length=1, description=_USER)
    domains = dy.List(dy.String(), min_length=1, description="of each event")
    item_ids = dy.List(dy.String(), min_length=1, description="of each event")
    timestamps_s = dy.List(dy.Int64(), min_length=1, description="seconds since 1970-01-01 UTC, never decreasing")
    parts = dy.List(dy.String(), description="train, validation or test, as `split.protocol` says")
    is_target = dy.List(
        dy.Bool(), description="what is asked for: the user's first in its domain and part, train left out"
    )

    @dy.rule()
    def lists_of_one_length(cls) -> pl.Expr:  # noqa: N805
        """The five lists describe the same events."""
        length = pl.col("item_ids").list.len()
        return pl.all_horizontal(
            pl.col(name).list.len() == length for name in ("domains", "timestamps_s", "parts", "is_target")
        )


class Semantics(Table):
    """One row per view of an item that has text."""

    sort_order = ("domain", "item_id", "view")

    domain = dy.String(primary_key=True, description=_DOMAIN)
    item_id = dy.String(primary_key=True, min_length=1, description=_ITEM)
    view = dy.Enum(View, primary_key=True, description=_VIEW)
    text = dy.String(min_length=1, description="what the view says of the item")
    source = dy.Enum(TextSource, description="generated by a run's LLM, imported, or fallback: the item's own words")
    model = dy.String(nullable=True, description="who wrote it; null for fallback")
    prompt = dy.String(nullable=True, description="name@version; null unless generated")
    fallback_reason = dy.String(nullable=True, description="why no LLM text was used; null unless fallback")
    prompt_tokens = dy.Int64(nullable=True, description="of the call that wrote both views, or failed to")
    completion_tokens = dy.Int64(nullable=True, description="of the same call")
    text_hash = dy.String(description="sha256 of the item text that it was made from")
    need = dy.String(nullable=True, description="what it is wanted for, one word of the prompt's list")
    occasions = dy.List(dy.String(), nullable=True, description="when it is used, of the prompt's list")
    audience = dy.String(nullable=True, description="how skilled or committed those are who want it")
    tastes = dy.List(dy.String(), nullable=True, description="how it is liked, of the prompt's list")
    price_attitude = dy.String(nullable=True, description="what those who want it think of its price")


class SemanticsAudit(Table):
    """One row per view of an item and rule that an LLM's text did not pass."""

    sort_order = ("domain", "item_id", "view", "rule")

    domain = dy.String(primary_key=True, description=_DOMAIN)
    item_id = dy.String(primary_key=True, min_length=1, description=_ITEM)
    view = dy.Enum(View, primary_key=True, description=_VIEW)
    rule = dy.Enum(AuditRule, primary_key=True, description="which rule: semacdr/semantics/rules.py")
    action = dy.Enum(AuditAction, description="of the data set; fallback: the text stands here alone")
    value = dy.Float64(nullable=True, description="how much: words that leak, share of stop words, likeness")
    detail = dy.String(description="what was found: the words, the reason, the item whose text it repeats")
    text = dy.String(nullable=True, description="what was judged, or what the LLM said, at most 600 characters")
    source = dy.Enum(TextSource, description="of the text that was judged")
    model = dy.String(nullable=True, description="who wrote it")


class SemanticsResponses(Table):
    """One row per answer that is kept, of whatever model, prompt and run; two of one key if two runs asked at once.

    No artifact but a view of the catalog over ``responses/*.jsonl``, all data sets of the store together:
    ``text_hash`` joins it to ``semantics``.
    """

    journal = dy.String(description="the file that it lies in: one per run that asked")
    key = dy.String(description="sha256 of all that shaped the answer")
    status = dy.String(description="ok, or failed for good")
    reason = dy.String(nullable=True, description="why it failed; null if ok")
    model = dy.String(description="who answered")
    revision = dy.String(description="of the model, empty where it tells none; of an import, the file and its hash")
    prompt = dy.String(description="name@version; empty for an import")
    text_hash = dy.String(description="sha256 of the item text that was asked about")
    specific = dy.String(nullable=True, description="null if it failed")
    agnostic = dy.String(nullable=True, description="null if it failed")
    fields = dy.String(nullable=True, description="JSON object of the structured fields")
    raw = dy.String(description="what the model said last, at most 2,000 characters")
    prompt_tokens = dy.Int64(description="of the last call")
    completion_tokens = dy.Int64(description="of the last call")
    finish_reason = dy.String(nullable=True, description="of the last call")
    calls = dy.Int64(
        description="2 if the first answer was not accepted; 0 for an import, or an item of no readable text"
    )
    spent_tokens = dy.Int64(description="prompt and completion, of all calls")
    seconds = dy.Float64(description="that all calls took, waiting included")
    created_at = dy.String(description="ISO 8601, UTC")
    source = dy.Enum(TextSource, description="generated or imported")


class Embeddings(Table):
    """One row per view of an item that has text."""

    sort_order = ("domain", "item_id", "view")

    domain = dy.String(primary_key=True, description=_DOMAIN)
    item_id = dy.String(primary_key=True, min_length=1, description=_ITEM)
    view = dy.Enum(View, primary_key=True, description=_VIEW)
    vector = Vector(description="what the encoder makes of the text; of length 1, so a product is a cosine")
    encoder = dy.String(description="name and revision of what made the vector")
    whitening = dy.String(description="fingerprint of the whitening in whitening.safetensors")


class IndexIds(Table):
    """One row per vector of a FAISS file: which item stands at which position."""

    sort_order = ("domain", "view", "position")

    domain = dy.String(primary_key=True, description=_DOMAIN)
    view = dy.Enum(View, primary_key=True, description=_VIEW)
    position = dy.Int64(primary_key=True, min=0, description="of the vector in `<domain>/<view>.faiss`")
    item_id = dy.String(min_length=1, description=_ITEM)
    checksum = dy.Int64(
        nullable=True, description="CRC-32 of the vector's bytes: tells a changed one; null in an exact index"
    )


class History(Table):
    """One row per epoch of a training run."""

    fit = dy.String(
        primary_key=True,
        description="train: on training events; train-mixed: the mixed history alone; refit: on validation events too",
    )
    epoch = dy.Int64(primary_key=True, min=1, description="counted from 1 in each fit")
    loss = dy.Float64(description="mean over the epoch's steps")
    validation_ndcg_10 = dy.Float64(nullable=True, description="macro over domains; null for refit")
    seconds = dy.Float64(description="of the epoch, its validation too")


class Steps(Table):
    """One row per step of a training run."""

    fit = dy.String(primary_key=True, description="as in `training_history`")
    step = dy.Int64(primary_key=True, min=1, description="counted from 1 through all epochs of a fit")
    epoch = dy.Int64(min=1, description="that it is part of")
    loss = dy.Float64(description="of its batch")
    gradient_norm = dy.Float64(min=0, description="before it was clipped")
    learning_rate = dy.Float64(min=0, description="of AdamW")


class Metrics(Table):
    """One row per metric of a model in a domain (``macro``: mean over domains) and group of targets."""

    model = dy.String(primary_key=True, description="a preset, a floor such as popularity, or an ablation of a preset")
    protocol = dy.String(primary_key=True, description="gts: the global temporal split; loo: leave-one-out")
    candidates = dy.String(
        primary_key=True, description="full: all of the domain but the history; sampled-999: drawn ones"
    )
    fit = dy.String(
        primary_key=True,
        description="train: on training events; refit: and validation events; rolling: refit, counts to each target",
    )
    part = dy.Enum(Part, primary_key=True, description="where the targets lie")
    seed = dy.Int64(primary_key=True, description="of the training run and of the order of ties")
    domain = dy.String(primary_key=True, description="of the targets, or macro")
    group = dy.String(primary_key=True, description="all, or a subset of the targets such as cold")
    metric = dy.String(primary_key=True, description="such as ndcg_10, hr_10, mrr, coverage_10")
    value = dy.Float64(min=0, max=1, description="higher is better")
    num_targets = dy.Int64(min=0, description="that the value is taken over")


class TargetRanks(Table):
    """One row per model and target: the rank it was given among all candidates."""

    model = dy.String(primary_key=True, description="a preset, a floor such as popularity, or an ablation of a preset")
    seed = dy.Int64(primary_key=True, description="of the training run and of the order of ties")
    user_id = dy.String(primary_key=True, description=_USER)
    domain = dy.String(primary_key=True, description=_DOMAIN)
    item_id = dy.String(description="the target")
    rank = dy.Int64(min=1, description="1 is best; ties stand in a seeded order")
    num_candidates = dy.Int64(min=1, description="items that were ranked, the target among them")
    groups = dy.List(dy.String(), nullable=True, description="groups that the target is in, `all` left out")


class Recommendations(Table):
    """One row per user, domain and rank; items of the user's history are left out (``repeat_after_days``)."""

    sort_order = ("user_id", "domain", "rank")

    user_id = dy.String(primary_key=True, min_length=1, description=_USER)
    domain = dy.String(primary_key=True, description=_DOMAIN)
    rank = dy.Int64(primary_key=True, min=1, description="1 is best; without gaps")
    item_id = dy.String(min_length=1, description=_ITEM)
    score = dy.Float64(description="comparable within a user and domain only")
    trained_score = dy.Float64(
        nullable=True, description="of the vectors alone; `score` is what the gate makes of it and the experts' scores"
    )
    reason = dy.String(description="in words: which score decided; of the trained one, which history and view")
    decided_by = dy.String(
        nullable=True,
        description="the score that lifts the item most above the mean of like support: trained, an expert's, or trend",
    )
    history = dy.String(nullable=True, description="target, source or mixed: most weight in the user's vector")
    view = dy.String(nullable=True, description="agnostic, specific or id: most weight in the item's vector")
    nearest = dy.List(
        dy.Struct({"domain": dy.String(), "item_id": dy.String(), "similarity": dy.Float64()}),
        nullable=True,
        description="of each domain the user's past item nearest to this one, by cosine of their fused vectors",
    )
    as_of_s = dy.Int64(nullable=True, description="the moment that the list was made for: seconds since 1970-01-01 UTC")


class UserVectors(Table):
    """One row per user and target domain: the fused preference."""

    sort_order = ("user_id", "domain")

    user_id = dy.String(primary_key=True, min_length=1, description=_USER)
    domain = dy.String(primary_key=True, description=_DOMAIN)
    vector = Vector(description="its product with an item's vector in `item_vectors` is the `trained_score`")
    weight_target = dy.Float64(description="share of the history in this domain")
    weight_source = dy.Float64(description="share of the history in the other domains")
    weight_mixed = dy.Float64(description="share of the mixed history")


class ItemVectors(Table):
    """One row per item: the fused vector."""

    sort_order = ("domain", "item_id")

    domain = dy.String(primary_key=True, description=_DOMAIN)
    item_id = dy.String(primary_key=True, min_length=1, description=_ITEM)
    vector = Vector(description="as the model fuses the two views and the ID")
    weight_agnostic = dy.Float64(description="share of the agnostic view")
    weight_specific = dy.Float64(description="share of the specific view")
    weight_id = dy.Float64(description="share of the ID; 0 for an item that training never saw")


class GateChecks(Table):
    """One row per check of a candidate for production, and domain (``all``: of the whole; an index is its own)."""

    sort_order = ("artifact", "check", "domain")

    artifact = dy.String(primary_key=True, description="checkpoint, index or recommendations")
    check = dy.String(primary_key=True, description="ndcg_10, ndcg_10_best, recall_10, full_lists, ...")
    domain = dy.String(primary_key=True, description="of the targets, users or items; `<domain>/<view>` of an index")
    candidate = dy.String(description="version of the artifact that is judged")
    production = dy.String(nullable=True, description="version that it is compared with; null: there is none")
    value = dy.Float64(nullable=True, description="the candidate's")
    production_value = dy.Float64(nullable=True, description="production's; null where it is not compared")
    bound = dy.Float64(nullable=True, description="what the value must not be below (above, for failure_share)")
    passed = dy.Bool(description="false: the artifact does not go into production by itself")
    reason = dy.String(description="value and bound in words")


TABLES: dict[str, dict[str, type[Table]]] = {
    "interactions": {"interactions": Interactions},
    "items": {"items": Items},
    "rejects": {"rejects": Rejects},
    "sequences": {"sequences": Sequences},
    "semantics": {"semantics": Semantics, "semantics_audit": SemanticsAudit},
    "embeddings": {"embeddings": Embeddings},
    "index": {"index_ids": IndexIds},
    "checkpoint": {"training_history": History, "training_steps": Steps},
    "evaluation": {"evaluation": Metrics, "evaluation_ranks": TargetRanks},
    "recommendations": {"recommendations": Recommendations},
    "user_vectors": {"user_vectors": UserVectors},
    "item_vectors": {"item_vectors": ItemVectors},
    "gate": {"gate_checks": GateChecks},
    "report": {},
}
"""Artifact -> its tables. A table ``t`` is ``t.parquet``, or the Parquet files below ``t/``."""

RESPONSES = "semantics_responses"
"""The catalog's view over the response cache; its columns are those of ``SemanticsResponses``."""

CONTRACT_VERSIONS: dict[str, int] = {
    "interactions": 1,
    "items": 1,
    "rejects": 1,
    "sequences": 1,
    "semantics": 1,
    "embeddings": 1,
    "index": 1,
    "checkpoint": 2,
    "evaluation": 1,
    "recommendations": 1,
    "user_vectors": 1,
    "item_vectors": 1,
    "gate": 1,
    "report": 1,
}
"""Artifact -> the version of its tables' contract, which its manifest keeps.

A new column that may be null is compatible: readers give it as null for artifacts from before it. Anything else needs
the next number here. ``tests/test_tables.py`` fails on a change that is not compatible and has the same number.
"""

REPORT_PAGE = "report.html"
WHITENING_FILE = "whitening.safetensors"
"""Of embeddings: what vectors are whitened by."""

FILES: dict[str, dict[str, str]] = {
    "embeddings": {WHITENING_FILE: "per view, `<view>.mean` and `<view>.components`"},
    "index": {
        "<domain>/<view>.faiss": "inner-product index of the view's vectors",
        "index.json": "each index's kind, recall, and how it came about",
    },
    "checkpoint": {
        "model.safetensors": "the weights, what the model knows of items, what the experts remember",
        "config.json": "the preset with its overrides, the history's length, the domains",
        "vocabulary.parquet": "`domain`, `item_id`, `item_index`; items are counted from 1",
        "tensorboard/<fit>/events.*": "the same curves as `training_history`, and HR@10, for TensorBoard",
    },
    "report": {REPORT_PAGE: "one page that needs no network: evaluation, model, semantics, users and their lists"},
}
"""Artifact -> what else lies in its folder, and what it holds."""


def check_contract(artifact: str, found: int, reference: str) -> None:
    """Refuse an artifact whose tables this version of SemaCDR cannot read.

    Args:
        artifact: its name.
        found: the contract version in its manifest.
        reference: ``name@version``, for the message.

    Raises:
        StoreError: another contract, or an artifact that this version does not know.
    """
    known = CONTRACT_VERSIONS.get(artifact)
    if found == known:
        return
    newer = known is None or found > known
    raise StoreError(
        f"{reference} has tables of {'a newer' if newer else 'an older'} contract",
        found=f"{artifact}, contract version {found}",
        expected="an artifact that this version of SemaCDR makes" if known is None else f"contract version {known}",
        do=(
            "upgrade this installation"
            if newer
            else "run the stage that makes it again: the new version has today's columns"
        ),
    )


def table_files(folder: Path, table: str) -> list[Path]:
    """Return the Parquet files of a table in an artifact's folder, in a stable order."""
    single = folder / f"{table}.parquet"
    return [single] if single.exists() else sorted((folder / table).rglob("*.parquet"))


def scan_files(files: Path | list[Path]) -> pl.LazyFrame:
    """Return the rows of Parquet files, wherever they lie: ``*``, ``[`` and ``name=value`` in a path mean nothing."""
    return pl.scan_parquet(files, glob=False, hive_partitioning=False)  # noqa: TID251 (here it is)


def check(artifact: str, folder: Path) -> dict[str, int]:
    """Check every table of an artifact against its contract, file by file.

    Returns:
        Rows of each table.

    Raises:
        DataError: a table has no file, another schema, or rows that break a rule.
    """
    rows = {}
    for table, schema in TABLES[artifact].items():
        files = table_files(folder, table)
        if not files:
            raise DataError(
                f"{artifact}: table {table} has no file",
                expected=f"{table}.parquet or {table}/*.parquet in {folder}",
                do="this is a fault of the stage that made it; please report it",
            )
        rows[table] = sum(pq.read_metadata(file).num_rows for file in files)
        for file in files:
            _check_file(artifact, table, schema, file)
    return rows


_ROWS_TO_CHECK = 500_000


def _check_file(artifact: str, table: str, schema: type[Table], file: Path) -> None:
    before: pl.DataFrame | None = None
    for frame in _parts_to_check(schema, file):
        _check_rows(artifact, table, schema, file, frame, before)
        before = frame.tail(1)


def _parts_to_check(schema: type[Table], file: Path) -> Iterator[pl.DataFrame]:
    """Yield a file's rows a part at a time, where their order alone shows that no key is there twice; else at once."""
    scan = scan_files(file)
    num_rows = pq.read_metadata(file).num_rows
    size = _ROWS_TO_CHECK if _ordered_by_key(schema) else max(1, num_rows)
    for start in range(0, max(1, num_rows), size):
        yield scan.slice(start, size).collect()


def _ordered_by_key(schema: type[Table]) -> bool:
    return bool(schema.sort_order) and set(schema.sort_order) <= set(schema.primary_key())


def _check_rows(
    artifact: str, table: str, schema: type[Table], file: Path, frame: pl.DataFrame, before: pl.DataFrame | None
) -> None:
    """Check some rows; ``before`` is the one that they follow."""
    fault = "this is a fault of the stage that made it; please report it"
    columns = list(schema.columns())
    if frame.columns != columns:
        raise DataError(f"{artifact}: {table} ({file.name})", found=frame.columns, expected=columns, do=fault)
    enums = [name for name, column in schema.columns().items() if isinstance(column, dy.Enum)]
    # Text is sorted as text, also where it names a category.
    following = frame if before is None else pl.concat([before, frame])
    in_order = not schema.sort_order or _is_sorted(following, schema.sort_order, strictly=_ordered_by_key(schema))
    frame = frame.with_columns(pl.col(name).cast(schema.columns()[name].dtype, strict=False) for name in enums)
    try:
        _, failure = schema.filter(frame)
    except dy.exc.SchemaError as error:
        raise DataError(f"{artifact}: {table} ({file.name}) has other types", found=error, do=fault) from error
    if len(failure):
        broken = failure.invalid().select(schema.primary_key() or columns[:3]).head(6)
        raise DataError(
            f"{artifact}: {table} ({file.name}) breaks its contract in {len(failure)} rows",
            found=f"{failure.counts()}, such as {examples(broken.rows())}",
            expected="the rules in semacdr/tables.py",
            do=fault,
        )
    if not in_order:
        raise DataError(f"{artifact}: {table} ({file.name}) is not sorted", expected=schema.sort_order, do=fault)


def _is_sorted(frame: pl.DataFrame, columns: tuple[str, ...], *, strictly: bool) -> bool:
    in_order = pl.lit(value=not strictly)
    for name in reversed(columns):
        this, following = pl.col(name).head(pl.len() - 1), pl.col(name).tail(pl.len() - 1)
        in_order = (this < following) | ((this == following) & in_order)
    return frame.height < 2 or bool(frame.select(in_order.all()).item())  # noqa: PLR2004 (one row is in order)
