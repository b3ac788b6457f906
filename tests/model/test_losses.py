import math

import pytest
import torch

from semacdr.model import loss as loss_module
from semacdr.model.contrastive import Agreement, info_nce, near_duplicates, uniformity
from semacdr.model.loss import binary_cross_entropy, chunked_cross_entropy, gbce_power, sampled_cross_entropy


@pytest.mark.parametrize("chunk_scores", [1, 50, 10_000])
def test_chunked_cross_entropy_equals_the_plain_one_with_its_gradients(
    monkeypatch: pytest.MonkeyPatch, chunk_scores: int
):
    monkeypatch.setattr(loss_module, "CHUNK_SCORES", chunk_scores)
    torch.manual_seed(0)
    state, items = torch.randn(13, 6, requires_grad=True), torch.randn(17, 6, requires_grad=True)
    target, weight = torch.randint(0, 17, (13,)), torch.rand(13)
    (3 * chunked_cross_entropy(state, items, target, weight)).backward()
    chunked = [state.grad.clone(), items.grad.clone()]
    state.grad = items.grad = None
    plain = (weight * torch.nn.functional.cross_entropy(state @ items.T, target, reduction="none")).sum()
    (3 * plain).backward()
    torch.testing.assert_close(chunked_cross_entropy(state, items, target, weight), plain)
    for ours, theirs in zip(chunked, [state.grad, items.grad], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_chunked_cross_entropy_gradient_agrees_with_finite_differences():
    torch.manual_seed(0)
    state = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    items = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    target, weight = torch.tensor([0, 4, 4, 2]), torch.rand(4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a, b: chunked_cross_entropy(a, b, target, weight), (state, items))


def test_view_alignment_is_low_for_agreeing_views_and_log_size_for_equal_ones():
    alignment, nothing = Agreement(), torch.zeros(4, 4, dtype=torch.bool)
    agreeing = torch.eye(4)
    assert alignment(agreeing, agreeing, nothing) < 0.01
    alike = torch.ones(4, 4)
    assert math.isclose(alignment(alike, alike, nothing).item(), math.log(4), rel_tol=1e-5)


def test_view_alignment_duplicates_are_no_negatives():
    alike = torch.ones(4, 4)
    duplicates = near_duplicates(alike, 0.9)
    assert duplicates.all()
    assert Agreement()(alike, alike, duplicates).item() == pytest.approx(0, abs=1e-6)


def test_near_duplicates_are_told_by_cosine_whatever_the_length():
    raw = torch.tensor([[1.0, 0.0], [5.0, 0.5], [0.0, 1.0]])
    assert near_duplicates(raw, 0.9).tolist() == [[True, True, False], [True, True, False], [False, False, True]]


def test_uniformity_is_lower_for_spread_items_and_sees_pairs_of_one_domain_only():
    spread, alike = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.ones(2, 2)
    one_domain, two_domains = torch.tensor([0, 0]), torch.tensor([0, 1])
    assert uniformity(spread, one_domain).item() == pytest.approx(-8)
    assert uniformity(alike, one_domain).item() == pytest.approx(0, abs=1e-5)
    assert uniformity(spread, two_domains).item() == 0


@pytest.mark.parametrize("stands_for", [1.0, 7.5])
def test_sampled_cross_entropy_equals_a_naive_loop_and_its_gradient_finite_differences(stands_for: float):
    torch.manual_seed(0)
    state, own, candidates = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (5, 5, 4))
    at_target, weight = torch.tensor([-1, 2, 0, -1, 3]), torch.rand(5, dtype=torch.float64)
    expected = torch.zeros((), dtype=torch.float64)
    for row in range(5):
        target = state[row] @ own[row]
        others = [state[row] @ candidates[k] for k in range(4) if k != at_target[row]]
        total = target.exp() + stands_for * sum(score.exp() for score in others)
        expected = expected + weight[row] * (total.log() - target)

    def loss(*tensors: torch.Tensor) -> torch.Tensor:
        return sampled_cross_entropy(*tensors, at_target, weight, stands_for)

    torch.testing.assert_close(loss(state, own, candidates), expected)
    assert torch.autograd.gradcheck(loss, (state, own, candidates))


def test_sampled_cross_entropy_with_log_q_estimates_the_whole_catalogue():
    torch.manual_seed(0)
    state, items = torch.randn(6, 4) / 2, torch.randn(500, 4)
    target, weight = torch.randint(0, 500, (6,)), torch.ones(6)
    whole = chunked_cross_entropy(state, items, target, weight)
    losses = []
    for _ in range(300):
        drawn = torch.randperm(500)[:50]
        hit = drawn == target[:, None]
        place = torch.where(hit.any(dim=1), hit.float().argmax(dim=1), -1)
        losses.append(sampled_cross_entropy(state, items[target], items[drawn], place, weight, 10.0))
    assert torch.stack(losses).mean().item() == pytest.approx(whole.item(), rel=0.02)


def test_binary_cross_entropy_of_one_negative_is_that_of_sasrec_and_hidden_scores_cost_nothing():
    positive, negative = torch.tensor([2.0, -1.0]), torch.tensor([[0.5], [-torch.inf]])
    expected = -torch.sigmoid(positive).log().sum() - (1 - torch.sigmoid(negative[0, 0])).log()
    torch.testing.assert_close(binary_cross_entropy(positive, negative, torch.ones(2)), expected)


def test_gbce_power_limits():
    # t = 0 is plain BCE; t = 1 weighs the positive by the share of negatives that are sampled.
    assert gbce_power(256, 10_001, 0.0) == pytest.approx(1)
    assert gbce_power(256, 10_001, 1.0) == pytest.approx(256 / 10_000)


def gradients(loss: object, *shapes: tuple[int, int]) -> bool:
    torch.manual_seed(1)
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    return torch.autograd.gradcheck(loss, tensors)


def test_contrastive_gradients_agree_with_finite_differences():
    nobody, domain = torch.zeros(4, 4, dtype=torch.bool), torch.tensor([0, 0, 1, 1])
    temperature = torch.tensor(math.log(0.3), dtype=torch.float64)
    assert gradients(lambda one, other: info_nce(one, other, nobody, temperature), (4, 3), (4, 3))
    assert gradients(lambda vectors: uniformity(vectors, domain), (4, 3))
    agreement = Agreement(3).double()
    assert gradients(lambda one, other: agreement(one, other, nobody), (4, 3), (4, 3))
    assert gradients(lambda p, n: binary_cross_entropy(p[:, 0], n, torch.ones(4).double(), 0.4), (4, 1), (4, 3))
