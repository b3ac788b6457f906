from pathlib import Path
from statistics import fmean

import numpy as np
import polars as pl
import pytest
import torch

from semacdr.errors import DataError
from semacdr.model.config import load_preset, preset_names
from semacdr.model.histories import events_of, read_events
from semacdr.model.text_vectors import TextVectors, read_text_vectors
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import Part, View
from semacdr.training.fit import Fit, FitInputs, catalogue_of
from semacdr.training.negatives import NEIGHBOUR_SHARE, Negatives
from semacdr.training.neighbours import RANKS, neighbours


def inputs_of(artifacts: dict[str, Path], part: str = Part.TRAIN, **overrides: object) -> FitInputs:
    items = pl.read_parquet(artifacts["items"] / "items.parquet")
    vocabulary = Vocabulary.of_items(items)
    preset = str(overrides.pop("preset", "semacdr"))
    usual = {"dim": 8, "num_blocks": 1, "batch_users": 16, "negatives_from": "uniform", "log_q": True}
    return FitInputs(
        config=load_preset(preset, {**usual, **overrides}),
        vocabulary=vocabulary,
        text=read_text_vectors(artifacts["embeddings"], vocabulary),
        titles=items.select("domain", "item_id", "title"),
        events=read_events(artifacts["sequences"], vocabulary).up_to(part),
        max_length=12,
    )


def test_catalogue_counts_only_events_that_the_fit_may_see(toy_artifacts: dict[str, Path]):
    inputs = inputs_of(toy_artifacts)
    table = pl.read_parquet(toy_artifacts["sequences"] / "sequences.parquet")
    flat = table.explode("domains", "item_ids", "timestamps_s", "parts", "is_target").filter(pl.col("parts") == "train")
    counts = flat.group_by(domain="domains", item_id="item_ids").len()
    support = catalogue_of(inputs).support_I1
    for domain, item, index in inputs.vocabulary.table.rows():
        found = counts.filter((pl.col("domain") == domain) & (pl.col("item_id") == item))["len"]
        assert support[index] == (found[0] if len(found) else 0)
    assert support[0] == 0
    assert support.sum() < catalogue_of(inputs_of(toy_artifacts, Part.VALIDATION)).support_I1.sum()


def test_fit_does_not_see_later_parts(toy_artifacts: dict[str, Path], tmp_path: Path):
    """Other items in validation and test leave the weights of the fit train as they are."""
    inputs = inputs_of(toy_artifacts)
    table = pl.read_parquet(toy_artifacts["sequences"] / "sequences.parquet")
    first_of = {"books": "b000", "films": "f000"}
    changed = [
        [item if part == "train" else first_of[domain] for item, part, domain in zip(*row, strict=True)]
        for row in table.select("item_ids", "parts", "domains").rows()
    ]
    table.with_columns(item_ids=pl.Series(changed)).write_parquet(tmp_path / "sequences.parquet")
    others = inputs_of(toy_artifacts | {"sequences": tmp_path})

    def weights(inputs: FitInputs) -> dict[str, torch.Tensor]:
        fit = Fit(inputs, seed=0)
        fit.epoch()
        return fit.model.state_dict()

    for ours, theirs in zip(weights(inputs).values(), weights(others).values(), strict=True):
        assert torch.equal(ours, theirs)


def test_loss_that_is_not_finite_stops_the_fit(toy_artifacts: dict[str, Path]):
    inputs = inputs_of(toy_artifacts)
    text = inputs.text[View.SPECIFIC]
    text.whitened_I1K[text.present_I1] = float("inf")
    with pytest.raises(DataError, match="the loss is not finite"):
        Fit(inputs, seed=0).epoch()


@pytest.mark.parametrize(
    "change",
    [
        {"negatives_from": "popularity", "negatives": 4},
        {"negatives_from": "batch"},
        {"negatives_from": "batch", "log_q": False},
        {"adapter_mixture": True},
        {"sequence_fusion": "target"},
        {"whitening": "zca"},
        {"whitening": "zscore"},
    ],
)
def test_switches_train(toy_artifacts: dict[str, Path], change: dict[str, object]):
    fit = Fit(inputs_of(toy_artifacts, dropout=0.0, id_dropout=0.0, **change), seed=0)
    losses = [fmean(step.loss for step in fit.epoch()) for _ in range(8)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("source", ["uniform", "popularity", "batch", "neighbours"])
def test_negatives_with_log_q_estimate_the_whole_catalogue(source: str):
    torch.manual_seed(0)
    num_items, num_positions = 300, 200
    config = load_preset("semacdr", {"negatives": 60, "negatives_from": source, "log_q": True})
    support = torch.arange(1, num_items + 1)
    negatives = Negatives(config, [(0, num_items)], support, np.random.default_rng(0))
    state, items = torch.randn(1, 4) / 2, torch.randn(num_items, 4)
    negatives.neighbours = [neighbours(items, torch.randn(num_items, 8), duplicate_cosine=0.5)]
    whole = (items @ state[0]).logsumexp(dim=0)
    sums = []
    for _ in range(400):
        batch = torch.multinomial(support.double(), num_positions, replacement=True)
        (drawn,) = negatives.draw(batch)
        score = items[drawn.item_K] @ state[0] + torch.as_tensor(drawn.stands_for).log()
        sums.append(score.exp().sum())
    assert torch.stack(sums).mean().log().item() == pytest.approx(whole.item(), abs=0.03)


def test_negatives_from_the_batch_are_its_targets_and_no_more_than_asked():
    config = load_preset("semacdr", {"negatives": 5, "negatives_from": "batch", "log_q": False})
    negatives = Negatives(config, [(0, 50), (50, 100)], torch.ones(100).long(), np.random.default_rng(0))
    few, many = negatives.draw(torch.tensor([3, 3, 7, *range(60, 90)]))
    assert few.item_K.tolist() == [3, 7]
    assert len(many.item_K) == 5
    assert set(many.item_K.tolist()) <= set(range(60, 90))
    assert few.stands_for == many.stands_for == 1.0


def test_neighbours_are_those_of_a_naive_search():
    torch.manual_seed(0)
    vectors, texts = torch.randn(230, 3), torch.randn(230, 2)
    texts[::7] = 0
    found = neighbours(vectors, texts, duplicate_cosine=0.8)
    unit, text = vectors / vectors.norm(dim=1, keepdim=True), texts / texts.norm(dim=1, keepdim=True).clamp(min=1e-9)
    for item, row in enumerate(found.tolist()):
        others = sorted((other for other in range(230) if other != item), key=lambda o: -float(unit[item] @ unit[o]))
        ranked = others[RANKS[0] - 1 : RANKS[1]]
        assert {other for other in row if other >= 0} == {o for o in ranked if text[item] @ text[o] <= 0.8}
        assert row == sorted(row, reverse=True)
    assert (found == -1).any()


@pytest.mark.parametrize(("num_items", "kept"), [(1, 0), (20, 0), (25, 5), (400, 181)])
def test_neighbours_of_a_small_domain_are_fewer(num_items: int, kept: int):
    assert neighbours(torch.randn(num_items, 3), torch.zeros(num_items, 2), 0.9).shape == (num_items, kept)


def test_neighbour_negatives_lean_to_the_targets():
    """A share comes from the targets' neighbours, the rest from anywhere; without targets, all."""
    config = load_preset("semacdr", {"negatives": 100, "negatives_from": "neighbours", "log_q": True})
    negatives = Negatives(config, [(0, 10), (10, 1010)], torch.ones(1010).long(), np.random.default_rng(0))
    table = torch.full((1000, 4), -1, dtype=torch.int32)
    table[3] = torch.tensor([900, 700, 500, -1])
    negatives.neighbours = [torch.empty(10, 0, dtype=torch.int32), table]
    hits = 0
    for _ in range(20):
        small, drawn = negatives.draw(torch.tensor([2, 13, 14]))
        assert small.item_K.tolist() == list(range(10))
        near = torch.isin(drawn.item_K, torch.tensor([910, 710, 510]))
        hits += int(near.sum())
        # Target 3 (item 13) is one of two, so each of its three is a sixth of the neighbours drawn.
        tries = round(NEIGHBOUR_SHARE * 100)
        missed = (1 - (100 - tries) / 1000) * (1 - 1 / 6) ** tries
        expected = torch.where(near, 1 / (1 - missed), 1000 / (100 - tries))
        torch.testing.assert_close(torch.as_tensor(drawn.stands_for), expected.float())
    assert hits > 50
    _, drawn = negatives.draw(torch.tensor([2]))
    assert len(drawn.item_K.unique()) == 100


def test_fit_with_neighbour_negatives_learns_and_finds_them_anew_in_each_epoch(wide_artifacts: dict[str, Path]):
    change = {"negatives_from": "neighbours", "negatives": 30, "dropout": 0.0, "id_dropout": 0.0}
    fit = Fit(inputs_of(wide_artifacts, **change), seed=0)
    losses = [fmean(step.loss for step in fit.epoch())]
    first = fit._negatives.neighbours
    assert all((table >= 0).any() for table in first)
    losses += [fmean(step.loss for step in fit.epoch()) for _ in range(7)]
    assert losses[-1] < losses[0]
    assert not all(torch.equal(one, other) for one, other in zip(first, fit._negatives.neighbours, strict=True))


OTHER_PRESETS = [pytest.param(name, marks=pytest.mark.slow) for name in preset_names() if name != "semacdr"]


@pytest.mark.parametrize("preset", ["semacdr", *OTHER_PRESETS])
def test_every_preset_overfits_twenty_sequences(preset: str):
    """Each user walks a cycle of the own items, so that what is next follows from what was last."""
    num_users, steps = 20, 6
    names = [(domain, f"i{number:02d}") for domain in "ab" for number in range(2 * num_users)]
    vocabulary = Vocabulary.of_items(pl.DataFrame(names, schema=["domain", "item_id"], orient="row"))
    events = events_of(
        pl.DataFrame(
            {
                "user_id": [f"u{user:02d}" for user in range(num_users)],
                "domains": [["a", "a", "b"] * (steps // 3) for _ in range(num_users)],
                "item_ids": [[f"i{2 * user + step % 2:02d}" for step in range(steps)] for user in range(num_users)],
                "timestamps_s": [[step * 86_400 for step in range(steps)] for _ in range(num_users)],
                "parts": [["train"] * steps for _ in range(num_users)],
                "is_target": [[False] * steps for _ in range(num_users)],
            }
        ),
        vocabulary,
    )
    generator = torch.Generator().manual_seed(0)
    rows = vocabulary.num_items + 1
    present = torch.arange(rows) > 0
    text = {
        view: TextVectors(vectors, present, vectors)
        for view in View
        for vectors in [torch.randn(rows, 16, generator=generator)]
    }
    config = load_preset(
        preset,
        {
            "dim": 16, "num_blocks": 1, "dropout": 0.0, "id_dropout": 0.0,
            "alignment_weight": 0.0, "uniformity_weight": 0.0, "domain_alignment_weight": 0.0,
            "user_alignment_weight": 0.0,
            "learning_rate": 2e-2, "warmup_steps": 0, "half_life": None, "batch_users": 20,
        },
    )  # fmt: skip
    titles = vocabulary.table.select("domain", "item_id", title="item_id")
    inputs = FitInputs(config=config, vocabulary=vocabulary, text=text, titles=titles, events=events, max_length=steps)
    fit = Fit(inputs, seed=0)
    losses = [fmean(step.loss for step in fit.epoch()) for _ in range(80)]
    # Nobody can tell which user it is at the first event, nor, from one domain's history alone, at the first of b.
    unknowable = 2 / steps if preset == "sasrec-target" else 1 / steps
    assert losses[-1] < unknowable * 0.85
    assert losses[-1] < 0.45 * losses[0]


def test_profile_is_the_mean_of_the_texts_seen_before_the_query(
    toy_artifacts: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    inputs = inputs_of(toy_artifacts, profile_weight=1.0)
    fit, raw = Fit(inputs, seed=0), inputs.text[View.AGNOSTIC].raw_I1E
    align, given, chosen = fit._profile_alignment, [], []
    monkeypatch.setattr(fit, "_profile_alignment", lambda *args: given.append(args) or align(*args))
    choose = fit._one_query_of_each
    monkeypatch.setattr(fit, "_one_query_of_each", lambda *args: chosen.append(choose(*args)) or chosen[-1])
    profiles: list[torch.Tensor] = []
    fit.profile_agreement.register_forward_pre_hook(lambda _, pair: profiles.append(pair[1]))
    monkeypatch.setattr(fit, "_user_alignment", lambda states, _: states.vector_QD.new_zeros(()))
    fit.epoch()
    assert len(given) == len(chosen) == len(profiles) > 0
    for (step, _, histories), queries, found in zip(given, chosen, profiles, strict=True):
        for query, profile in zip(queries.tolist(), found, strict=True):
            row, last = int(histories.row_Q[query]), int(histories.position_Q[query])
            seen = step.item_R[histories.item_BL[row, : last + 1] - 1]
            torch.testing.assert_close(
                torch.nn.functional.normalize(profile, dim=0),
                torch.nn.functional.normalize(raw[seen].sum(dim=0), dim=0),
            )
