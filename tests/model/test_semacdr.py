from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from semacdr.errors import ConfigError
from semacdr.model.checkpoint import encode_all_items, load_checkpoint, user_states
from semacdr.model.config import ItemView, load_preset, preset_names
from semacdr.model.histories import (
    Events,
    Queries,
    events_of,
    queries_at,
    queries_of_targets,
    query_batches,
    read_events,
)
from semacdr.model.item_encoder import Catalogue, Measure
from semacdr.model.semacdr import SemaCdrModel
from semacdr.model.vocabulary import Vocabulary
from semacdr.tables import Part
from semacdr.training.batches import epoch_batches, training_windows

NUM_ITEMS = 6


def vocabulary_of(num_domains: int) -> Vocabulary:
    names = ["a", "b", "c"][:num_domains]
    return Vocabulary.of_items(
        pl.DataFrame(
            {
                "domain": [name for name in names for _ in range(NUM_ITEMS)],
                "item_id": [f"i{number}" for _ in names for number in range(NUM_ITEMS)],
            }
        )
    )


def sequences_of(num_domains: int, num_users: int = 6) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for user in range(num_users):
        times = np.sort(rng.integers(0, 6, 7)) * 86_400
        rows.append(
            {
                "user_id": f"u{user}",
                "domains": ["abc"[one] for one in rng.integers(0, num_domains, 7)],
                "item_ids": [f"i{one}" for one in rng.integers(0, NUM_ITEMS, 7)],
                "timestamps_s": times.tolist(),
                "parts": ["test"] * 7,
                "is_target": [True] * 7,
            }
        )
    return pl.DataFrame(rows)


def model_of(num_domains: int, preset: str = "semacdr", **overrides: object) -> SemaCdrModel:
    torch.manual_seed(0)
    vocabulary = vocabulary_of(num_domains)
    rows = vocabulary.num_items + 1
    present = torch.arange(rows) % 5 > 0
    catalogue = Catalogue(
        domain_I1=torch.from_numpy(vocabulary.domain_of_item),
        support_I1=torch.arange(rows) % 4,
        text={view: (torch.randn(rows, 5) * present[:, None], present) for view in list(ItemView)[:2]},
        measure=dict.fromkeys(list(ItemView)[:2], Measure(torch.zeros(1), torch.ones(1), torch.zeros(num_domains, 5))),
        num_domains=num_domains,
    )
    model = SemaCdrModel(load_preset(preset, {"dim": 8, **overrides}), catalogue)
    # Fresh gates are even and fresh tables are zero; the properties must hold for any weights.
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def targets_of_test(events: Events) -> Queries:
    return queries_of_targets(events, Part.TEST)


def scores(
    model: SemaCdrModel,
    sequences: pl.DataFrame,
    num_domains: int,
    queries_of: Callable[[Events], Queries] = targets_of_test,
) -> torch.Tensor:
    events = events_of(sequences, vocabulary_of(num_domains))
    queries = queries_of(events)
    with torch.inference_mode():
        items = encode_all_items(model)
        return user_states(model, items, events, queries, max_length=5).vector_QD @ items.vector_RD.T


@pytest.mark.parametrize("num_domains", [1, 2, 3])
@pytest.mark.parametrize("preset", preset_names())
def test_every_preset_scores_any_number_of_domains(preset: str, num_domains: int):
    result = scores(model_of(num_domains, preset), sequences_of(num_domains), num_domains)
    assert result.shape == (42, num_domains * NUM_ITEMS + 1)
    assert torch.isfinite(result).all()


@pytest.mark.parametrize("query_time", [False, True])
@pytest.mark.parametrize("change", ["later", "equal"])
def test_score_does_not_see_events_at_or_after_its_own_time(change: str, query_time: bool):
    model, before = model_of(2, query_time=query_time), sequences_of(2)
    events = events_of(before, vocabulary_of(2))
    queries = queries_of_targets(events, Part.TEST)
    for user in range(3):
        for at in range(7):
            row = before.row(user, named=True)
            time = row["timestamps_s"][at]
            hidden = [
                index
                for index, other in enumerate(row["timestamps_s"])
                if (other > time if change == "later" else other == time)
            ]
            items = [f"i{(int(one[1]) + 1) % 6}" if i in hidden else one for i, one in enumerate(row["item_ids"])]
            changed = before.with_columns(
                item_ids=pl.Series([items if u == user else old for u, old in enumerate(before["item_ids"].to_list())])
            )
            query = user * 7 + at
            assert queries.user[query] == user
            torch.testing.assert_close(
                scores(model, before, 2)[query], scores(model, changed, 2)[query], rtol=0, atol=0
            )


def test_score_sees_the_last_earlier_event_of_either_domain():
    model, before = model_of(2), sequences_of(2, num_users=1)
    base = scores(model, before, 2)[6]
    times = before["timestamps_s"][0].to_list()
    for domain in "ab":
        earlier = [i for i, name in enumerate(before["domains"][0].to_list()) if name == domain and times[i] < times[6]]
        items = before["item_ids"][0].to_list()
        items[earlier[-1]] = f"i{(int(items[earlier[-1]][1]) + 1) % 6}"
        assert not torch.allclose(scores(model, before.with_columns(item_ids=pl.Series([items])), 2)[6], base)


def test_permuting_users_changes_nothing():
    model, sequences = model_of(2), sequences_of(2)
    shuffled = sequences.sample(fraction=1, shuffle=True, seed=3)
    assert shuffled["user_id"].to_list() != sequences["user_id"].to_list()
    torch.testing.assert_close(scores(model, shuffled, 2), scores(model, sequences, 2), rtol=0, atol=0)


@pytest.mark.parametrize("overrides", [{}, {"query_time": True}, {"backbone": "towers"}, {"position": "rope+time"}])
def test_training_read_out_equals_the_inference_read_out(overrides: dict[str, object]):
    """One pass over a user's whole window gives each position what a query with its own history gets."""
    model, sequences = model_of(2, **overrides), sequences_of(2)
    events = events_of(sequences, vocabulary_of(2))
    windows = training_windows(events, max_length=20)
    queries = queries_of_targets(events, Part.TEST)
    with torch.inference_mode():
        items = encode_all_items(model)
        expected = user_states(model, items, events, queries, max_length=20)
        for batch in epoch_batches(events, windows, 4, np.random.default_rng(0)):
            states, event = model.user_states(items.vector_RD, batch.histories), batch.event
            torch.testing.assert_close(states.vector_QD, expected.vector_QD[event], rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(states.weight_Q3, expected.weight_Q3[event], rtol=1e-4, atol=1e-5)


def at_start(events: Events):
    return queries_at(events, np.array([0, 0]), np.array([0, 1]), np.zeros(2, np.int64))


def test_user_without_history_gets_the_start_state_of_the_domain():
    model = model_of(2)
    events = events_of(sequences_of(2), vocabulary_of(2))
    with torch.inference_mode():
        items = encode_all_items(model)
        states = user_states(model, items, events, at_start(events), max_length=5)
    expected = (model.start.weight + model.query.weight) * model.log_scale.exp()
    torch.testing.assert_close(states.vector_QD, expected)
    assert states.weight_Q3.tolist() == [[0, 0, 0], [0, 0, 0]]


def test_thread_weights_are_zero_for_empty_and_switched_off_threads():
    sequences = sequences_of(2, num_users=1).with_columns(domains=pl.Series([["a"] * 7]))
    events = events_of(sequences, vocabulary_of(2))
    late = queries_at(events, np.array([0, 0]), np.array([0, 1]), np.full(2, 10**6))
    for threads, expected in (
        (["target", "source", "mixed"], [[True, False, True], [False, True, True]]),
        (["target"], [[True, False, False], [False, False, False]]),
        (["source", "mixed"], [[False, False, True], [False, True, True]]),
    ):
        model = model_of(2, threads=threads)
        with torch.inference_mode():
            weight = user_states(model, encode_all_items(model), events, late, max_length=5).weight_Q3
        assert (weight > 0).tolist() == expected


def test_target_thread_alone_ignores_the_other_domain():
    model, before = model_of(2, "sasrec-target"), sequences_of(2)
    late = lambda events: queries_at(events, np.arange(6), np.zeros(6, np.int64), np.full(6, 10**6))  # noqa: E731
    items = [
        [f"i{(int(item[1]) + 1) % 6}" if domain == "b" else item for item, domain in zip(*row, strict=True)]
        for row in before.select("item_ids", "domains").rows()
    ]
    changed = before.with_columns(item_ids=pl.Series(items))
    # Length 5 of a merged history: the same events are cut either way, so only the items of b differ.
    torch.testing.assert_close(scores(model, changed, 2, late), scores(model, before, 2, late), rtol=0, atol=0)


def test_source_thread_alone_in_one_domain_is_refused():
    with pytest.raises(ConfigError, match="needs two domains"):
        model_of(1, threads=["source"])


def test_query_time_changes_only_recency(toy_checkpoint: Path, toy_artifacts: dict[str, Path]):
    loaded = load_checkpoint(toy_checkpoint)
    events = read_events(toy_artifacts["sequences"], loaded.vocabulary)
    queries = queries_of_targets(events, Part.TEST)
    later = replace(queries, time_s=queries.time_s + 30 * 86_400)
    now, then = loaded.user_states(events, queries), loaded.user_states(events, later)
    assert torch.isfinite(then.vector_QD).all()
    assert not torch.equal(now.weight_Q3, then.weight_Q3)


def test_timed_reading_equals_a_naive_loop_and_starts_as_identity():
    model, sequences = model_of(2, query_time=True), sequences_of(2)
    events = events_of(sequences, vocabulary_of(2))
    ((_, batch),) = query_batches(events, queries_of_targets(events, Part.TEST), max_length=20, batch_events=10_000)
    part, state, x = model.timed, torch.randn(len(batch.row_Q), 8), torch.randn(*batch.item_BL.shape, 8)
    with torch.inference_mode():
        found = part(state, x, batch)
        for query, (row, last) in enumerate(zip(batch.row_Q.tolist(), batch.position_Q.tolist(), strict=True)):
            expected = torch.zeros(8)
            if last >= 0:
                hours = (batch.time_Q[query] - batch.time_BL[row, : last + 1]) / 3_600
                logit = part.key(x[row, : last + 1]) @ part.query(state[query]) / 8**0.5
                share = (logit + part.age_bias[(1 + hours).log2().long()]).softmax(0)
                expected = part.gate.tanh() * part.out(share @ x[row, : last + 1])
            torch.testing.assert_close(found[query], expected, rtol=1e-4, atol=1e-5)
        part.gate.zero_()
        assert not part(state, x, batch).any()


def test_cross_attention_starts_as_identity_and_then_counts():
    sequences = sequences_of(2)
    model, plain = model_of(2), model_of(2, cross_attention=False)
    plain.load_state_dict({name: value for name, value in model.state_dict().items() if "cross_attention" not in name})
    with torch.no_grad():
        model.cross_attention.gate.fill_(0)
    torch.testing.assert_close(scores(model, sequences, 2), scores(plain, sequences, 2), rtol=0, atol=0)
    with torch.no_grad():
        model.cross_attention.gate.fill_(1)
    assert not torch.allclose(scores(model, sequences, 2), scores(plain, sequences, 2))


def test_towers_have_weights_of_their_own():
    model = model_of(2, backbone="towers")
    assert set(model.sequences) == {"target", "source", "mixed"}
    sequences = sequences_of(2)
    before = scores(model, sequences, 2)
    with torch.no_grad():
        model.sequences["source"].norm.weight.zero_()
        model.sequences["source"].norm.bias.zero_()
    assert not torch.allclose(scores(model, sequences, 2), before)


@pytest.mark.parametrize("fusion", ["mean", "sum", "concat"])
def test_sequence_fusion_of_one_thread_is_that_thread_or_a_map_of_it(fusion: str):
    model = model_of(2, threads=["mixed"], sequence_fusion=fusion)
    assert torch.isfinite(scores(model, sequences_of(2), 2)).all()
    state, facts = torch.randn(3, 3, 8), torch.zeros(3, 5)
    usable = torch.tensor([[False, False, True]]).expand(3, -1)
    fused, weight = model.fusion(state, usable, facts)
    assert weight.tolist() == [[0, 0, 1]] * 3
    if fusion != "concat":
        torch.testing.assert_close(fused, state[:, 2])


def test_sequence_fusion_by_the_target_takes_the_first_history_that_is_there():
    model = model_of(2, sequence_fusion="target")
    state, facts = torch.randn(3, 3, 8), torch.zeros(3, 5)
    usable = torch.tensor([[True, True, True], [False, True, True], [False, False, False]])
    fused, weight = model.fusion(state, usable, facts)
    assert weight.tolist() == [[1, 0, 0], [0, 1, 0], [0, 0, 0]]
    torch.testing.assert_close(fused, torch.stack([state[0, 0], state[1, 1], torch.zeros(8)]))
