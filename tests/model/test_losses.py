import math

import pytest
import torch

from semacdr.model import loss as loss_module
from semacdr.model.contrastive import ViewAlignment, near_duplicates, uniformity
from semacdr.model.loss import chunked_cross_entropy


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
    alignment, nothing = ViewAlignment(), torch.zeros(4, 4, dtype=torch.bool)
    agreeing = torch.eye(4)
    assert alignment(agreeing, agreeing, nothing) < 0.01
    alike = torch.ones(4, 4)
    assert math.isclose(alignment(alike, alike, nothing).item(), math.log(4), rel_tol=1e-5)


def test_view_alignment_duplicates_are_no_negatives():
    alike = torch.ones(4, 4)
    duplicates = near_duplicates(alike, 0.9)
    assert duplicates.all()
    assert ViewAlignment()(alike, alike, duplicates).item() == pytest.approx(0, abs=1e-6)


def test_near_duplicates_are_told_by_cosine_whatever_the_length():
    raw = torch.tensor([[1.0, 0.0], [5.0, 0.5], [0.0, 1.0]])
    assert near_duplicates(raw, 0.9).tolist() == [[True, True, False], [True, True, False], [False, False, True]]


def test_uniformity_is_lower_for_spread_items_and_sees_pairs_of_one_domain_only():
    spread, alike = torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), torch.ones(2, 2)
    one_domain, two_domains = torch.tensor([0, 0]), torch.tensor([0, 1])
    assert uniformity(spread, one_domain).item() == pytest.approx(-8)
    assert uniformity(alike, one_domain).item() == pytest.approx(0, abs=1e-5)
    assert uniformity(spread, two_domains).item() == 0
