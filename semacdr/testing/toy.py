"""Small synthetic artifacts for tests: a few domains whose users share tastes, with texts that tell of them.

Users have one taste out of a few, the same in all domains; items belong to a taste; a user mostly takes items of the
own taste. So popularity knows nothing, histories know much, and the other domain's history knows as much as the own.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import polars as pl
from safetensors.numpy import save_file

from semacdr.tables import Part, View

SECONDS_PER_DAY = 86_400
START_S = 1_400_000_000
NUM_DAYS = 1_000
WIDTH, WHITENED_WIDTH = 16, 8


@dataclass(frozen=True)
class Toy:
    """How large, and how regular."""

    num_domains: int = 2
    num_users: int = 80
    items_per_domain: int = 40
    events_per_user: int = 10
    """In each of the user's domains."""
    num_tastes: int = 4
    faithfulness: float = 0.9
    """Share of events with an item of the user's own taste."""
    textless_share: float = 0.1
    seed: int = 0


def domain_names(num_domains: int) -> list[str]:
    """Return the names of the toy's domains."""
    return ["books", "films", "games", "music", "shoes"][:num_domains]


def write_toy(folder: Path, toy: Toy = Toy()) -> dict[str, Path]:
    """Write the artifacts ``interactions``, ``items``, ``sequences`` and ``embeddings``.

    The last tenth of a domain's items are cold: they are taken in part test only, or never.

    Returns:
        The folder of each artifact.
    """
    rng = np.random.default_rng(toy.seed)
    items = _items(toy, rng)
    interactions = _interactions(toy, items, rng)
    folders = {name: folder / name for name in ("interactions", "items", "sequences", "embeddings")}
    for path in folders.values():
        path.mkdir(parents=True, exist_ok=True)
    interactions.write_parquet(folders["interactions"] / "interactions.parquet")
    text = pl.when(pl.col("has_text")).then(pl.format("a thing of taste {}", "taste"))
    items.select(
        "domain", "item_id", title=text, brand=pl.lit(None, pl.String), categories=pl.lit(None, pl.String),
        description=pl.lit(None, pl.String), price=pl.lit(None, pl.Float64), text=text,
        text_hash=pl.when(pl.col("has_text")).then(pl.col("item_id")), has_metadata=pl.lit(value=True),
        has_text="has_text",
    ).write_parquet(folders["items"] / "items.parquet")  # fmt: skip
    sequences = sequences_of(interactions)
    sequences.write_parquet(folders["sequences"] / "sequences.parquet")
    _write_embeddings(folders["embeddings"], toy, items, sequences, rng)
    return folders


def sequences_of(
    interactions: pl.DataFrame, validation_quantile: float = 0.8, test_quantile: float = 0.9
) -> pl.DataFrame:
    """Return the ``sequences`` table of interactions, split as the protocol ``gts`` says."""
    times = interactions["timestamp_s"]
    validation_cut, test_cut = (times.quantile(at, "lower") for at in (validation_quantile, test_quantile))
    part = (
        pl.when(pl.col("timestamp_s") < validation_cut)
        .then(pl.lit(Part.TRAIN.value))
        .when(pl.col("timestamp_s") < test_cut)
        .then(pl.lit(Part.VALIDATION.value))
        .otherwise(pl.lit(Part.TEST.value))
    )
    events = interactions.with_columns(part=part).sort("user_id", "timestamp_s", "domain", "item_id")
    first = pl.int_range(pl.len()).over("user_id", "domain", "part") == 0
    events = events.with_columns(is_target=first & (pl.col("part") != Part.TRAIN.value))
    return events.group_by("user_id", maintain_order=True).agg(
        domains="domain", item_ids="item_id", timestamps_s="timestamp_s", parts="part", is_target="is_target"
    )


def _items(toy: Toy, rng: np.random.Generator) -> pl.DataFrame:
    rows = [
        {
            "domain": domain,
            "item_id": f"{domain[0]}{number:03d}",
            "taste": number % toy.num_tastes,
            "cold": number >= toy.items_per_domain * 0.9,
            "has_text": bool(rng.random() >= toy.textless_share),
        }
        for domain in domain_names(toy.num_domains)
        for number in range(toy.items_per_domain)
    ]
    return pl.DataFrame(rows)


def _interactions(toy: Toy, items: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    names = domain_names(toy.num_domains)
    by_domain = {name: items.filter(pl.col("domain") == name) for name in names}
    rows = set()
    for user in range(toy.num_users):
        taste = user % toy.num_tastes
        # Every third user is in one domain only, so that histories may be empty on either side.
        own = names if user % 3 else [names[(user // 3) % len(names)]]
        for domain in own:
            table = by_domain[domain]
            for day in rng.integers(0, NUM_DAYS, toy.events_per_user).tolist():
                fits = table["taste"].to_numpy() == taste
                if rng.random() >= toy.faithfulness:
                    fits = ~fits
                # The test cut lies near nine tenths of the time.
                known = fits & (~table["cold"].to_numpy() | (day >= NUM_DAYS * 0.92))
                item = table["item_id"][int(rng.choice(np.flatnonzero(known)))]
                rows.add((f"u{user:03d}", domain, item, START_S + day * SECONDS_PER_DAY))
    schema = {"user_id": pl.String, "domain": pl.String, "item_id": pl.String, "timestamp_s": pl.Int64}
    frame = pl.DataFrame(sorted(rows), schema=schema, orient="row")
    return frame.with_columns(rating=pl.lit(None, pl.Float64)).sort("domain", "user_id", "timestamp_s", "item_id")


def _write_embeddings(
    folder: Path, toy: Toy, items: pl.DataFrame, sequences: pl.DataFrame, rng: np.random.Generator
) -> None:
    with_text = items.filter("has_text")
    events = sequences.explode("domains", "item_ids", "parts").filter(pl.col("parts") == Part.TRAIN.value)
    trained = events.select(domain="domains", item_id="item_ids").unique().with_columns(trained=pl.lit(value=True))
    joined = with_text.join(trained, on=["domain", "item_id"], how="left", maintain_order="left")
    is_trained = joined["trained"].fill_null(value=False).to_numpy()
    domain = with_text["domain"].replace_strict({name: i for i, name in enumerate(domain_names(toy.num_domains))})
    direction = {
        "taste": rng.normal(size=(toy.num_tastes, WIDTH)),
        "domain": rng.normal(size=(toy.num_domains, WIDTH)),
    }
    frames: list[pl.DataFrame] = []
    whitening: dict[str, npt.NDArray[np.float32]] = {}
    for view, domain_share in ((View.AGNOSTIC, 0.3), (View.SPECIFIC, 1.0)):
        vectors = (
            direction["taste"][with_text["taste"].to_numpy()]
            + domain_share * direction["domain"][domain.to_numpy()]
            + 0.3 * rng.normal(size=(with_text.height, WIDTH))
        )
        unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
        mean, components = whitening_of(unit[is_trained], WHITENED_WIDTH)
        whitening |= {f"{view}.mean": mean, f"{view}.components": components}
        vector = pl.Series(unit, dtype=pl.Array(pl.Float32, WIDTH))
        frames.append(
            with_text.select("domain", "item_id").with_columns(
                view=pl.lit(view.value), vector=vector, encoder=pl.lit("toy"), whitening=pl.lit("toy")
            )
        )
    pl.concat(frames).sort("domain", "item_id", "view").write_parquet(folder / "embeddings.parquet")
    save_file(whitening, folder / "whitening.safetensors")


def whitening_of(
    vectors: npt.NDArray[np.float32], width: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the mean and the components that whiten vectors: (vectors - mean) @ components."""
    mean = vectors.mean(axis=0)
    _, scale, directions = np.linalg.svd(vectors - mean, full_matrices=False)
    kept = min(width, len(scale))
    components = directions[:kept].T / np.maximum(scale[:kept] / np.sqrt(len(vectors)), 1e-3)
    return mean.astype(np.float32), np.ascontiguousarray(components.astype(np.float32))
