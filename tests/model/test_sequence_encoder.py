import pytest
import torch

from semacdr.model.config import load_preset
from semacdr.model.semacdr import last_by_domain
from semacdr.model.sequence_encoder import (
    Dropout,
    Histories,
    Reading,
    SequenceEncoder,
    causal_mask,
    counts_by_domain,
    own_mask,
    rotations,
)

DOMAIN = torch.tensor([[0, 1, 0, 2, 1, 0], [1, 1, 0, 0, 0, 0]])
IS_EVENT = torch.tensor([[1, 1, 1, 1, 1, 0], [1, 1, 1, 0, 0, 0]], dtype=torch.bool)


def test_masks_equal_a_naive_loop():
    (mixed,), own = causal_mask(6, DOMAIN.device), own_mask(DOMAIN)
    for row in range(2):
        for query in range(6):
            for key in range(6):
                same = bool(DOMAIN[row, query] == DOMAIN[row, key])
                assert bool(mixed[query, key]) == (key <= query)
                assert bool(own[row, query, key]) == (key <= query and same)


def test_counts_and_last_positions_equal_a_naive_loop():
    counts, last = counts_by_domain(DOMAIN, IS_EVENT, 3), last_by_domain(DOMAIN, IS_EVENT, 3)
    for row in range(2):
        for position in range(6):
            for domain in range(3):
                seen = [at for at in range(position + 1) if IS_EVENT[row, at] and DOMAIN[row, at] == domain]
                assert counts[row, position, domain] == len(seen)
                assert last[row, position, domain] == (seen[-1] if seen else -1)


TIME = torch.tensor([[0, 1, 5, 5, 90, 0], [3, 3, 400, 0, 0, 0]]) * 86_400
HISTORIES = Histories(DOMAIN, TIME, IS_EVENT)
BOTH = [Reading.MIXED, Reading.OWN]
KINDS = [
    {"domain_price": True},
    {"position": "learned"},
    {"position": "rope+time", "block": "ligr", "domain_price": True},
    {},
]


def encoder(**overrides: object) -> SequenceEncoder:
    torch.manual_seed(0)
    made = SequenceEncoder(load_preset("semacdr", {"dim": 8, "dropout": 0.0, **overrides}), num_domains=3).eval()
    for name, parameter in made.named_parameters():
        if name in ("time_bias", "price", "domains.weight"):
            torch.nn.init.normal_(parameter)
    return made


def only(rows: slice | list[int], events: slice | list[int]) -> Histories:
    return Histories(DOMAIN[rows][:, events], TIME[rows][:, events], IS_EVENT[rows][:, events])


@pytest.mark.parametrize("kind", KINDS)
def test_encoder_own_state_equals_the_mixed_state_of_the_domains_events_alone(kind: dict[str, object]):
    x = torch.randn(1, 6, 8)
    if kind.get("position") == "learned":
        pytest.skip("own positions count from 1, mixed ones from 0: only differences are alike")
    own = encoder(**kind)(x, only(slice(1), slice(6)), BOTH)[1]
    chosen = [0, 2]
    (alone,) = encoder(**kind)(x[:, chosen], only(slice(1), chosen), [Reading.MIXED])
    torch.testing.assert_close(own[:, chosen], alone)


@pytest.mark.parametrize("kind", KINDS)
def test_encoder_changing_a_later_event_changes_no_earlier_state(kind: dict[str, object]):
    x = torch.randn(2, 6, 8)
    changed = x.clone()
    changed[:, 3:] += torch.randn(2, 3, 8)
    for before, after in zip(
        encoder(**kind)(x, HISTORIES, BOTH), encoder(**kind)(changed, HISTORIES, BOTH), strict=True
    ):
        torch.testing.assert_close(before[:, :3], after[:, :3], rtol=0, atol=0)
        assert not torch.allclose(before[0, 3], after[0, 3])


@pytest.mark.parametrize("kind", KINDS)
def test_encoder_padding_changes_no_state(kind: dict[str, object]):
    x = torch.randn(2, 6, 8)
    longer = encoder(**kind)(x, HISTORIES, BOTH)
    shorter = encoder(**kind)(x[1:, :3], only(slice(1, 2), slice(3)), BOTH)
    for long, short in zip(longer, shorter, strict=True):
        torch.testing.assert_close(long[1:, :3], short)


def test_block_equals_plain_attention_over_halves_that_are_turned_as_complex_numbers():
    block, x = encoder().blocks[0], torch.randn(2, 6, 8)
    rotation = rotations(6, 4, x.device)[torch.tensor([[0, 1, 2, 3, 4, 5], [1, 1, 2, 2, 3, 6]])]
    mask = torch.full((1, 1, 6, 6), -torch.inf).triu(1)

    def turned(heads: torch.Tensor) -> torch.Tensor:
        product = torch.complex(heads[..., :2], heads[..., 2:]) * rotation[:, :, None]
        return torch.cat([product.real, product.imag], dim=3)

    query, key, value = block.qkv(block.attention_norm(x)).view(2, 6, 3, 2, 4).unbind(2)
    logit = torch.einsum("bqhf,bkhf->bhqk", turned(query), turned(key)) / 4**0.5 + mask
    read = torch.einsum("bhqk,bkhf->bqhf", logit.softmax(3), value).flatten(2)
    expected = x + block.out(read)
    expected = expected + block.narrow(torch.nn.functional.gelu(block.widen(block.feed_norm(expected))))
    torch.testing.assert_close(block(x, rotation, mask), expected)


def test_encoder_price_high_enough_shuts_the_other_domains_out():
    made, x = encoder(domain_price=True), torch.randn(1, 6, 8)
    changed = x.clone()
    changed[0, [1, 3, 4]] = torch.randn(3, 8)
    histories = only(slice(1), slice(6))
    with torch.no_grad():
        made.price.fill_(100.0)
        dear = [made(one, histories, [Reading.MIXED])[0][0, [0, 2]] for one in (x, changed)]
        made.price.fill_(-100.0)
        free = [made(one, histories, [Reading.MIXED])[0][0, 2] for one in (x, changed)]
    torch.testing.assert_close(dear[0], dear[1])
    assert not torch.allclose(free[0], free[1])


def test_encoder_time_bias_tells_near_from_far():
    made, x = encoder(position="rope+time"), torch.randn(1, 6, 8)
    sooner = Histories(DOMAIN[:1], torch.arange(6)[None], IS_EVENT[:1])
    before, after = (made(x, histories, [Reading.MIXED])[0] for histories in (only(slice(1), slice(6)), sooner))
    torch.testing.assert_close(before[0, 0], after[0, 0])
    assert not torch.allclose(before[0, 4], after[0, 4])


def test_dropout_drops_its_share_keeps_the_mean_and_rests_in_evaluation():
    torch.manual_seed(0)
    made, x = Dropout(0.3), torch.ones(101, 99)
    dropped = made(x)
    assert (dropped == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert dropped.mean().item() == pytest.approx(1, abs=0.03)
    # Neighbours share a draw, not a fate.
    both = ((dropped == 0).flatten()[:-1] & (dropped == 0).flatten()[1:]).float().mean()
    assert both.item() == pytest.approx(0.09, abs=0.02)
    assert made.eval()(x) is x


@pytest.mark.parametrize("kind", KINDS)
def test_states_of_asked_events_are_those_of_all(kind: dict[str, object]):
    made, x = encoder(**kind), torch.randn(2, 6, 8)
    asked = torch.tensor([[False, True, False, False, True, False], [True, False, False, False, False, False]])
    for whole, part in zip(made(x, HISTORIES, BOTH), made(x, HISTORIES, BOTH, asked), strict=True):
        torch.testing.assert_close(part[asked], whole[asked])
        assert not torch.allclose(part[0, 2], whole[0, 2])
