"""What can stand in a table: a floor, a preset, or a preset with things switched, named ``preset:switch:...``."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from semacdr.errors import ConfigError, close_names
from semacdr.evaluation.floors import FLOORS
from semacdr.model.config import load_preset, preset_names


class Source(StrEnum):
    """What the other domains' histories are made to be."""

    REAL = "real"
    ALONE = "alone"
    """In training and at test each user is one in every domain: the target-only twin."""
    OFF = "off"
    """At test alone: trained with the other domains, asked without them."""
    SHUFFLED = "shuffled"
    """At test alone: another user's."""
    UNRELATED = "unrelated"
    """At test alone: those of a user who never took an item that this one took."""


class Texts(StrEnum):
    """What the two text views are made to be, in training and at test."""

    GIVEN = "given"
    OWN_WORDS = "own-words"
    """The item's own text in both views: no writer."""
    MASKED = "masked"
    """The same without brand and categories, and without their words anywhere."""
    RANDOM = "random"
    """Random vectors of the same mean and covariance, one per item and view."""


@dataclass(frozen=True)
class Switch:
    """One thing that is changed of a preset."""

    overrides: Mapping[str, Any] = field(default_factory=dict)
    source: Source = Source.REAL
    texts: Texts = Texts.GIVEN


_UNIFORM = {"negatives_from": "uniform", "log_q": True}
_NO_CONTRAST = {
    "alignment_weight": 0.0, "uniformity_weight": 0.0, "domain_alignment_weight": 0.0, "user_alignment_weight": 0.0
}  # fmt: skip
_AS_SAID = {"or_mixed_alone": False}
SWITCHES: Mapping[str, Switch] = {
    "no-agnostic": Switch({"views": ["specific", "id"]}),
    "no-specific": Switch({"views": ["agnostic", "id"]}),
    "no-id": Switch({"views": ["agnostic", "specific"]}),
    "no-texts": Switch(
        {"views": ["id"], "experts": ["popularity", "transitions", "title", "repeats", "similar", "neighbours"]}
    ),
    "no-contrast": Switch(_NO_CONTRAST),
    "no-view-alignment": Switch({"alignment_weight": 0.0}),
    "no-uniformity": Switch({"uniformity_weight": 0.0}),
    "user-alignment": Switch({"user_alignment_weight": 0.05}),
    "profile": Switch({"profile_weight": 0.05}),
    "no-domain-alignment": Switch({"domain_alignment_weight": 0.0}),
    "item-mean": Switch({"item_fusion": "mean"}),
    "item-sum": Switch({"item_fusion": "sum"}),
    "item-concat": Switch({"item_fusion": "concat"}),
    "no-adapter": Switch({"adapter_rank": 0}),
    "mixture-adapter": Switch({"adapter_mixture": True}),
    "no-source": Switch({"threads": ["target", "mixed"], **_AS_SAID}),
    "no-target": Switch({"threads": ["source", "mixed"], **_AS_SAID}),
    "no-mixed": Switch({"threads": ["target", "source"], **_AS_SAID}),
    "all-threads": Switch(_AS_SAID),
    "mixed-only": Switch({"threads": ["mixed"]}),
    "sequence-mean": Switch({"sequence_fusion": "mean", **_AS_SAID}),
    "sequence-sum": Switch({"sequence_fusion": "sum", **_AS_SAID}),
    "sequence-concat": Switch({"sequence_fusion": "concat", **_AS_SAID}),
    "sequence-target": Switch({"sequence_fusion": "target", **_AS_SAID}),
    "no-cross-attention": Switch({"cross_attention": False, **_AS_SAID}),
    "experts-alone": Switch({"max_epochs": 0, "threads": ["mixed"]}),
    # Without an expert for popularity the trained score has to know of it.
    "no-experts": Switch({"experts": [], **_UNIFORM}),
    "no-repeats": Switch({"experts": ["popularity", "transitions", "title", "semantics", "similar", "neighbours"]}),
    "no-similar": Switch({"experts": ["popularity", "transitions", "title", "semantics", "repeats", "neighbours"]}),
    "no-neighbours": Switch({"experts": ["popularity", "transitions", "title", "semantics", "repeats", "similar"]}),
    "target-experts": Switch({"expert_history": "target"}),
    "mixed-experts": Switch({"expert_history": "mixed"}),
    "no-half-life": Switch({"half_life": None}),
    "short-half-life": Switch({"half_life": 0.1}),
    "towers": Switch({"backbone": "towers", **_AS_SAID}),
    "ligr": Switch({"block": "ligr"}),
    "learned-positions": Switch({"position": "learned"}),
    "time-between": Switch({"position": "rope+time"}),
    "query-time": Switch({"query_time": True}),
    "domain-price": Switch({"domain_price": True}),
    "softmax": Switch({"loss": "softmax", **_UNIFORM}),
    "gbce": Switch({"loss": "gbce", **_UNIFORM}),
    "bce": Switch({"loss": "bce", **_UNIFORM}),
    "no-log-q": Switch({**_UNIFORM, "log_q": False}),
    "uniform-negatives": Switch(_UNIFORM),
    "popular-negatives": Switch({"negatives_from": "popularity", "log_q": True}),
    "batch-negatives": Switch({"negatives_from": "batch", "log_q": True}),
    "neighbour-negatives": Switch({"negatives_from": "neighbours", "log_q": True}),
    "no-whitening": Switch({"whitening": "none"}),
    "zscore": Switch({"whitening": "zscore"}),
    "zca": Switch({"whitening": "zca"}),
    "no-centring": Switch({"centring": 0.0}),
    "alone": Switch(source=Source.ALONE),
    "source-off": Switch(source=Source.OFF),
    "source-shuffled": Switch(source=Source.SHUFFLED),
    "source-unrelated": Switch(source=Source.UNRELATED),
    "own-words": Switch(texts=Texts.OWN_WORDS),
    "raw-only": Switch({"views": ["specific"]}, texts=Texts.OWN_WORDS),
    "masked": Switch(texts=Texts.MASKED),
    "random-texts": Switch(texts=Texts.RANDOM),
}


TUNED = "tuned"
"""Stands among the switches for what a study found: see ``semacdr.comparison.tuning``."""

_LONGEST_SLUG = 39
"""Of the 63 letters of an alias the setting takes 24."""


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    name: str
    preset: str | None
    """None: a floor."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    source: Source = Source.REAL
    texts: Texts = Texts.GIVEN

    @property
    def slug(self) -> str:
        """The name as a file or, behind a setting, an alias may have it.

        One that is long, or has other letters than those of our own rows, ends with a hash of all of it.
        """
        plain = self.name.replace(":", "-")
        slug = re.sub("[^a-z0-9_-]", "-", plain.lower())
        if slug == plain and len(slug) <= _LONGEST_SLUG:
            return slug
        return f"{slug[: _LONGEST_SLUG - 9]}-{hashlib.sha256(self.name.encode()).hexdigest()[:8]}"


def known_rows() -> list[str]:
    """Return the names of all floors and presets; each preset also goes with each switch."""
    return [*FLOORS, *preset_names()]


def find_row(name: str, overrides: Mapping[str, Any] | None = None) -> Row:
    """Return the row of a name.

    Args:
        name: a floor, a preset, or ``preset:switch:...``; a later switch goes over an earlier one.
        overrides: fields of the preset, under the switches'.

    Raises:
        ConfigError: nothing is called that, or the overrides are impossible.
    """
    base, *switched = name.split(":")
    if base in FLOORS:
        if switched or overrides:
            raise ConfigError(f"{name}: a floor has no switches and no overrides", do=f"say {base}")
        return Row(base, None)
    if base not in preset_names():
        raise ConfigError(
            f"no model {base!r}", expected=close_names(base, known_rows()), do="name a floor, a preset or preset:switch"
        )
    row = Row(name, base, overrides or {})
    for one in switched:
        if one not in SWITCHES:
            raise ConfigError(
                f"{name}: no switch {one!r}",
                expected=close_names(one, [*SWITCHES, TUNED]),
                do="correct the name; `semacdr ablate` asks for every switch",
            )
        switch = SWITCHES[one]
        row = replace(
            row,
            overrides={**row.overrides, **switch.overrides},
            source=row.source if switch.source is Source.REAL else switch.source,
            texts=row.texts if switch.texts is Texts.GIVEN else switch.texts,
        )
    load_preset(base, row.overrides)
    return row
