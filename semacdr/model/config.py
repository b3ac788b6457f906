"""What a model is made of and how it is trained: one frozen config; a preset is a TOML file of it.

Every part of the method is a switch here, so that a row of an ablation table is one changed field.
"""

import tomllib
from collections.abc import Mapping
from enum import StrEnum
from importlib import resources
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from semacdr.dataset import Frozen, config_error
from semacdr.errors import ConfigError, close_names


class ItemView(StrEnum):
    """What an item is known by; the order is that of every weight vector."""

    AGNOSTIC = "agnostic"
    SPECIFIC = "specific"
    ID = "id"


class Thread(StrEnum):
    """A history that a user is known by, seen from the domain that is predicted; the order is that of every weight."""

    TARGET = "target"
    SOURCE = "source"
    MIXED = "mixed"


class Expert(StrEnum):
    """A scorer without weights of its own, from memory alone (``experts.py``); the order is that of its columns."""

    POPULARITY = "popularity"
    TRANSITIONS = "transitions"
    TITLE = "title"
    SEMANTICS = "semantics"
    REPEATS = "repeats"
    SIMILAR = "similar"
    NEIGHBOURS = "neighbours"


class ModelConfig(Frozen):
    """One model and how it is fitted. Defaults are those of the preset ``semacdr``."""

    preset: str
    """The preset's name, under which results are reported."""

    views: tuple[ItemView, ...] = Field(default=tuple(ItemView), min_length=1)
    """Views that an item's vector is made of."""
    item_fusion: Literal["gate", "mean", "sum", "concat"] = "gate"
    """How the views become one vector: a learned gate that knows the item's support, their mean, their sum, or a
    linear map of them side by side."""
    whitening: Literal["pca", "zca", "zscore", "none"] = "pca"
    """Text vectors whitened on the items that training may see, the same turned back to the encoder's directions, each
    number scaled to mean 0 and variance 1 over those items, or as the encoder gave them."""
    centring: float = Field(default=1.0, ge=0, le=1)
    """Share of a domain's own mean that is taken out of the agnostic view, so that it tells domains apart less."""
    adapter_rank: int = Field(default=8, ge=0)
    """Rank of each domain's own addition to the shared projection of the specific view; 0: none."""
    adapter_mixture: bool = False
    """The additions are not each domain's own, but as many experts, mixed by what the text says."""
    id_dropout: float = Field(default=0.2, ge=0, lt=1)
    """Share of items whose ID is hidden in a training step, so that an item without one is nothing unusual."""

    threads: tuple[Thread, ...] = Field(default=tuple(Thread), min_length=1)
    """Histories that a user's vector is made of."""
    or_mixed_alone: bool = False
    """The mixed history alone is fitted, too, and whichever validates better, with its gate, is kept."""
    sequence_fusion: Literal["gate", "mean", "sum", "concat", "target"] = "gate"
    """How the threads become one vector: a learned gate that knows support and recency, their mean, their sum, a linear
    map of them side by side, or the target's alone (the first that is there), which leaves the others to
    ``cross_attention``."""
    cross_attention: bool = True
    """The target's state also reads the other states through a gate that starts shut."""
    backbone: Literal["shared", "towers"] = "shared"
    """One encoder for all threads, or one for each."""
    block: Literal["sasrec", "ligr"] = "sasrec"
    """Plain residuals, or gated ones around attention and SwiGLU (eSASRec)."""
    position: Literal["learned", "rope", "rope+time"] = "rope"
    """How order is told: a vector per place, rotation, or rotation and a bias by the logarithm of the time between."""
    query_time: bool = False
    """The history's items are read once more by their age at the time of the query, through a gate that starts shut."""
    domain_price: bool = False
    """Looking from one domain to another costs a learned amount of attention (no gain seen: docs/log.md)."""
    dim: int = Field(default=64, ge=4)
    """Width of item and user vectors."""
    num_blocks: int = Field(default=2, ge=1)
    """Transformer blocks."""
    num_heads: int = Field(default=2, ge=1)
    """Attention heads of a block."""
    dropout: float = Field(default=0.3, ge=0, lt=1)
    """Share of activations dropped in training, at the input and after each sublayer."""
    max_length: int | None = Field(default=None, ge=1)
    """Events looked back on, at most the data set's ``split.max_length``; None: as many as that."""

    experts: tuple[Expert, ...] = tuple(Expert)
    """Score experts beside the trained score; empty: the trained score alone, without a gate."""
    expert_history: Literal["best", "target", "mixed"] = "best"
    """Which last items transitions, titles and texts look at: those of the domain asked for, and of others only where
    it has none; those of all domains alike; or whichever of the two validates better."""
    cold_share: float = Field(default=1.0, ge=0)
    """Where there is a gate: cold items in the first ten ranks, relative to their share of the validation targets. By
    their likelihood alone next to none come up; a boost makes up for that. 0: none."""

    loss: Literal["softmax", "sampled", "gbce", "bce"] = "sampled"
    """Over all items of the target's domain; over ``negatives`` of them; gBCE with as many; BCE with one."""
    negatives: int = Field(default=1024, ge=1)
    """Negatives of a domain and step at most, shared by its positions (BCE draws its one from them); drawn uniformly, a
    smaller domain gives all its items."""
    negatives_from: Literal["uniform", "popularity", "batch", "neighbours"] = "uniform"
    """Drawn alike, by their events (to the power .75), the targets of the step's other positions, or a share of them
    from those nearest to the step's targets by the epoch's first item vectors, near-duplicates left out."""
    log_q: bool = True
    """Sampled negatives count for all that they stand for."""
    gbce_calibration: float = Field(default=0.75, ge=0, le=1)
    """t of gBCE (Petrov and Macdonald 2023, gSASRec, section 4.3)."""

    alignment_weight: float = Field(default=0.1, ge=0)
    """Weight of the InfoNCE loss between an item's two texts; 0: off."""
    uniformity_weight: float = Field(default=0.05, ge=0)
    """Weight of the loss that spreads the items of a domain over the sphere; 0: off."""
    domain_alignment_weight: float = Field(default=0.05, ge=0)
    """Weight of the InfoNCE loss between agnostic vectors of items of two domains that one user took near in time."""
    user_alignment_weight: float = Field(default=0.0, ge=0)
    """Weight of the InfoNCE loss between source and target state of users who have both (harms: docs/log.md)."""
    profile_weight: float = Field(default=0.0, ge=0)
    """Weight of the InfoNCE loss between the mixed state and a profile: the mean of what the encoder gave for the
    agnostic texts of the history's items. No LLM writes about persons; at inference there is no profile."""
    contrastive_items: int = Field(default=512, ge=2)
    """Items drawn in a step for the two contrastive losses."""
    duplicate_cosine: float = Field(default=0.9, gt=0, le=1)
    """Items whose raw texts are nearer than this are never each other's negatives."""

    learning_rate: float = Field(default=1e-3, gt=0)
    """AdamW's, after the warm-up."""
    weight_decay: float = Field(default=0.01, ge=0)
    """On matrices only: not on ID tables, biases and norms."""
    warmup_steps: int = Field(default=50, ge=0)
    """Steps in which the learning rate rises to its value; it stays there, so that epochs count alike in both fits."""
    clip_norm: float = Field(default=1.0, gt=0)
    """Largest norm of a step's gradient."""
    batch_users: int | None = Field(default=None, ge=1)
    """Histories of a training step; None: a twelfth of them all, within 16 to 256, so that small sets get enough steps
    and large ones do not pay for encoding the catalogue at each of many."""
    max_epochs: int = Field(default=40, ge=0)
    """Epochs at most. 0: nothing is trained, the experts and their gate score alone, and vectors of users and items say
    nothing."""
    patience: int = Field(default=5, ge=1)
    """Epochs without a better validation score before training stops."""
    half_life: float | None = Field(default=None, gt=0, le=1)
    """Training events count half as much for each such share of the fit's events that is newer; None: all alike.

    A share and not days: it fits a log of weeks and one of decades, and a log that grows."""

    @model_validator(mode="after")
    def _possible(self) -> "ModelConfig":
        for name, values in (("views", self.views), ("threads", self.threads), ("experts", self.experts)):
            if len(set(values)) != len(values):
                raise ValueError(f"{name} names one twice")
        if self.negatives_from != "uniform" and self.loss != "sampled":
            found = f'negatives_from "{self.negatives_from}" goes with loss "sampled" only'
            raise ValueError(f'{found}: set negatives_from = "uniform", too')
        if not self.max_epochs and not self.experts:
            raise ValueError("max_epochs = 0 trains nothing, and there are no experts to score instead: name some")
        if self.dim % (2 * self.num_heads):
            raise ValueError("dim must be a multiple of twice num_heads: positions rotate pairs within a head")
        return self

    @property
    def reads_texts(self) -> bool:
        """Some part reads the two texts' vectors; titles are read as words."""
        return Expert.SEMANTICS in self.experts or set(self.views) != {ItemView.ID} or self.aligns_profiles

    @property
    def tried_threads(self) -> list[tuple[Thread, ...]]:
        """What a training fits: ``threads``, and the mixed history alone if that is to be tried."""
        alone = (Thread.MIXED,)
        several = self.or_mixed_alone and self.threads != alone and self.max_epochs > 0
        return [self.threads, alone] if several else [self.threads]

    @property
    def reads_across(self) -> bool:
        """The target's state is there to read other states, and cross-attention is on."""
        return self.cross_attention and Thread.TARGET in self.threads and len(self.threads) > 1

    @property
    def aligns_users(self) -> bool:
        """Both states are there to be aligned, and alignment is on."""
        return self.user_alignment_weight > 0 and {Thread.TARGET, Thread.SOURCE} <= set(self.threads)

    @property
    def aligns_profiles(self) -> bool:
        """The mixed state is there to be aligned with a profile, and alignment is on."""
        return self.profile_weight > 0 and Thread.MIXED in self.threads

    @property
    def aligns_domains(self) -> bool:
        """The agnostic view is there to be aligned across domains, and alignment is on."""
        return self.domain_alignment_weight > 0 and ItemView.AGNOSTIC in self.views

    @property
    def aligns_views(self) -> bool:
        """Both texts are there to be aligned, and alignment is on."""
        return self.alignment_weight > 0 and {ItemView.AGNOSTIC, ItemView.SPECIFIC} <= set(self.views)


def preset_names() -> list[str]:
    """Return the names of all presets."""
    folder = resources.files("semacdr.model") / "presets"
    return sorted(file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml"))


def load_preset(name: str, overrides: Mapping[str, Any] | None = None) -> ModelConfig:
    """Return a preset with some of its fields set otherwise.

    Raises:
        ConfigError: no such preset, an unknown field, or a value that cannot be.
    """
    if name not in preset_names():
        raise ConfigError(
            f"training.preset: no preset {name!r}",
            expected=close_names(name, preset_names()),
            do="name one of the presets; training.overrides changes single fields",
        )
    text = (resources.files("semacdr.model") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    values = {"preset": name, **tomllib.loads(text), **(overrides or {})}
    try:
        return ModelConfig.model_validate(values)
    except ValidationError as error:
        raise config_error(
            f"preset {name} with training.overrides", error, ModelConfig, "semacdr/model/config.py"
        ) from error
