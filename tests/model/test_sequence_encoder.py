import torch

from semacdr.model.semacdr import last_by_domain
from semacdr.model.sequence_encoder import SequenceEncoder, causal_mask, counts_by_domain, own_mask

DOMAIN = torch.tensor([[0, 1, 0, 2, 1, 0], [1, 1, 0, 0, 0, 0]])
IS_EVENT = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]], dtype=torch.bool)


def test_masks_equal_a_naive_loop():
    mixed, own = causal_mask(IS_EVENT), own_mask(DOMAIN, IS_EVENT)
    for row in range(2):
        for query in range(6):
            for key in range(6):
                visible = query == key or (key < query and bool(IS_EVENT[row, key]))
                same = bool(DOMAIN[row, query] == DOMAIN[row, key])
                assert bool(mixed[row, query, key]) == visible
                assert bool(own[row, query, key]) == (visible and same)


def test_counts_and_last_positions_equal_a_naive_loop():
    counts, last = counts_by_domain(DOMAIN, IS_EVENT, 3), last_by_domain(DOMAIN, IS_EVENT, 3)
    for row in range(2):
        for position in range(6):
            for domain in range(3):
                seen = [at for at in range(position + 1) if IS_EVENT[row, at] and DOMAIN[row, at] == domain]
                assert counts[row, position, domain] == len(seen)
                assert last[row, position, domain] == (seen[-1] if seen else -1)


def encoder():
    torch.manual_seed(0)
    return SequenceEncoder(dim=8, num_blocks=2, num_heads=2, dropout=0.0, num_domains=3).eval()


def test_encoder_own_state_equals_the_mixed_state_of_the_domains_events_alone():
    x = torch.randn(1, 6, 8)
    _, own = encoder()(x, DOMAIN[:1], IS_EVENT[:1])
    chosen = [0, 2]
    alone, _ = encoder()(x[:, chosen], DOMAIN[:1, chosen], IS_EVENT[:1, chosen], own=False)
    torch.testing.assert_close(own[:, chosen], alone)


def test_encoder_changing_a_later_event_changes_no_earlier_state():
    x = torch.randn(2, 6, 8)
    changed = x.clone()
    changed[:, 3:] += torch.randn(2, 3, 8)
    for before, after in zip(encoder()(x, DOMAIN, IS_EVENT), encoder()(changed, DOMAIN, IS_EVENT), strict=True):
        torch.testing.assert_close(before[:, :3], after[:, :3], rtol=0, atol=0)
        assert not torch.allclose(before[0, 3], after[0, 3])


def test_encoder_padding_changes_no_state():
    x = torch.randn(2, 6, 8)
    for long, short in zip(
        encoder()(x, DOMAIN, IS_EVENT), encoder()(x[1:, :3], DOMAIN[1:, :3], IS_EVENT[1:, :3]), strict=True
    ):
        torch.testing.assert_close(long[1:, :3], short)
