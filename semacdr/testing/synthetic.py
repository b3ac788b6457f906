"""A synthetic world of known transfer strength: how much of a user's taste in one domain is the taste in the other.

Users have a latent taste in each domain; the two are alike to the degree ``rho``: 0 for strangers, 1 for the same.
Items have latent qualities, and texts that tell them through noise. A user takes items near the own taste. The source
domain's history is long and the target's short, so that what can be had from the source is known and large at rho = 1,
and nothing at rho = 0.
"""

from dataclasses import dataclass

import numpy as np
import polars as pl
import torch

from semacdr.model.histories import Events, events_of
from semacdr.model.text_vectors import TextVectors
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import Part, View

SOURCE, TARGET = "source", "target"
SECONDS_PER_DAY = 86_400


@dataclass(frozen=True)
class World:
    """How large, and how alike."""

    rho: float
    """Correlation of a user's latent tastes in the two domains, 0 to 1."""
    num_users: int = 400
    items_per_domain: int = 120
    latent_dim: int = 4
    source_events: int = 12
    target_events: int = 3
    """Training events in the target domain; one more is validation's target."""
    sharpness: float = 6.0
    """How closely users keep to their taste."""
    text_noise: float = 0.3
    """Spread of the noise between an item's qualities and its text, in units of the qualities' own."""
    text_dim: int = 16
    seed: int = 0


@dataclass(frozen=True)
class Made:
    """The world as training sees it."""

    vocabulary: Vocabulary
    events: Events
    text: dict[View, TextVectors]
    titles: pl.DataFrame


def make_world(world: World) -> Made:
    """Return the events and texts of a world; each user's last target-domain event is a validation target."""
    rng = np.random.default_rng(world.seed)
    shape = (world.num_users, world.latent_dim)
    shared, own = rng.normal(size=shape), rng.normal(size=shape)
    taste = {SOURCE: shared, TARGET: world.rho * shared + np.sqrt(1 - world.rho**2) * own}
    quality = {name: rng.normal(size=(world.items_per_domain, world.latent_dim)) for name in (SOURCE, TARGET)}
    names = [(name, f"{name[0]}{number:04d}") for name in (SOURCE, TARGET) for number in range(world.items_per_domain)]
    vocabulary = Vocabulary.of_items(pl.DataFrame(names, schema=["domain", "item_id"], orient="row"))
    rows = []
    for user in range(world.num_users):
        source = _taken(taste[SOURCE][user], quality[SOURCE], world.source_events, world.sharpness, rng)
        target = _taken(taste[TARGET][user], quality[TARGET], world.target_events + 1, world.sharpness, rng)
        order = [*rng.permutation([SOURCE] * len(source) + [TARGET] * (len(target) - 1)).tolist(), TARGET]
        left = {SOURCE: source.tolist(), TARGET: target.tolist()}
        rows.append(
            {
                "user_id": f"u{user:05d}",
                "domains": order,
                "item_ids": [f"{name[0]}{left[name].pop():04d}" for name in order],
                "timestamps_s": [day * SECONDS_PER_DAY for day in range(len(order))],
                "parts": [Part.TRAIN.value] * (len(order) - 1) + [Part.VALIDATION.value],
                "is_target": [False] * (len(order) - 1) + [True],
            }
        )
    qualities = np.concatenate([quality[name] for name in vocabulary.domains])
    titles = vocabulary.table.select("domain", "item_id", title=pl.lit(None, pl.String))
    text = {view: _text(qualities, world, rng) for view in View}
    return Made(vocabulary, events_of(pl.DataFrame(rows), vocabulary), text, titles)


def _taken(
    taste: np.ndarray, quality: np.ndarray, count: int, sharpness: float, rng: np.random.Generator
) -> np.ndarray:
    """Items of one user in one domain, drawn without replacement by a softmax of how well they fit (Gumbel top-k)."""
    fit = sharpness * quality @ taste / (np.linalg.norm(taste) * np.linalg.norm(quality, axis=1))
    chosen: np.ndarray = np.argsort(-(fit + rng.gumbel(size=len(fit))))[:count]
    return rng.permutation(chosen)


def _text(quality: np.ndarray, world: World, rng: np.random.Generator) -> TextVectors:
    """One view of all items: their qualities, turned into a wider space, with noise."""
    turn = rng.normal(size=(world.latent_dim, world.text_dim)) / np.sqrt(world.latent_dim)
    told = quality @ turn + world.text_noise * rng.normal(size=(len(quality), world.text_dim))
    vectors = torch.from_numpy(np.concatenate([np.zeros((1, world.text_dim)), told]).astype(np.float32))
    return TextVectors(vectors, torch.arange(len(vectors)) > 0, vectors)
