import torch

from semacdr.model.config import ItemView, load_preset
from semacdr.model.item_encoder import Catalogue, ItemEncoder, Measure, centred, masked_softmax, offsets

NUM_ITEMS = 12


def catalogue() -> Catalogue:
    generator = torch.Generator().manual_seed(0)
    present = torch.ones(NUM_ITEMS + 1, dtype=torch.bool)
    present[[0, 3, 4]] = False
    support = torch.arange(NUM_ITEMS + 1) % 4
    support[[0, 4]] = 0
    vectors = torch.randn(NUM_ITEMS + 1, 6, generator=generator)
    text = {
        view: (vectors * scale * present[:, None], present)
        for view, scale in ((ItemView.AGNOSTIC, 1), (ItemView.SPECIFIC, -2))
    }
    domain = torch.tensor([0] + [0] * 5 + [1] * 7)
    measure = dict.fromkeys(text, Measure(torch.zeros(1), torch.ones(1), torch.zeros(2, 6)))
    return Catalogue(domain_I1=domain, support_I1=support, text=text, measure=measure, num_domains=2)


def encoder(**overrides: object) -> ItemEncoder:
    torch.manual_seed(1)
    made = ItemEncoder(load_preset("semacdr", {"dim": 8, **overrides}), catalogue())
    # A fresh gate is even; any other must keep the limits too.
    if made.config.item_fusion == "gate":
        torch.nn.init.normal_(made.gate.weight)
    return made.eval()


def test_item_without_support_uses_no_id():
    made, items = encoder(), torch.arange(NUM_ITEMS + 1)
    before = made(items)
    assert (before.weight_R3[made.support_I1 == 0, 2] == 0).all()
    assert (before.weight_R3[made.support_I1 > 0, 2] > 0).all()
    with torch.no_grad():
        made.ids.weight += torch.randn_like(made.ids.weight)
    after = made(items)
    unsupported = made.support_I1 == 0
    torch.testing.assert_close(before.vector_RD[unsupported], after.vector_RD[unsupported], rtol=0, atol=0)
    assert not torch.allclose(before.vector_RD[~unsupported], after.vector_RD[~unsupported])


def test_item_without_text_is_its_id_and_weights_sum_to_one():
    made = encoder()
    vectors = made(torch.tensor([3]))
    torch.testing.assert_close(vectors.weight_R3, torch.tensor([[0.0, 0.0, 1.0]]))
    torch.testing.assert_close(vectors.vector_RD, made.norm(made.ids(torch.tensor([3]))))


def test_item_without_any_view_is_finite_and_weighs_nothing():
    vectors = encoder()(torch.tensor([4]))
    assert torch.isfinite(vectors.vector_RD).all()
    assert vectors.weight_R3.tolist() == [[0, 0, 0]]


def test_one_view_switched_on_is_that_view_alone():
    made = encoder(views=["specific"])
    vectors = made(torch.tensor([1, 2]))
    assert vectors.weight_R3.tolist() == [[0, 1, 0], [0, 1, 0]]
    torch.testing.assert_close(vectors.vector_RD, made.norm(vectors.specific_RD))


def test_item_fusion_mean_shares_evenly_among_what_is_there():
    weight = encoder(item_fusion="mean")(torch.tensor([1, 8])).weight_R3
    torch.testing.assert_close(weight, torch.tensor([[1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0.0]]))


def test_item_fusion_concat_and_sum_read_what_is_there_only():
    items = torch.arange(NUM_ITEMS + 1)
    for fusion in ("concat", "sum"):
        made = encoder(item_fusion=fusion)
        before = made(items).vector_RD
        with torch.no_grad():
            made.ids.weight += 1 + torch.randn_like(made.ids.weight)
        after = made(items).vector_RD
        unsupported = made.support_I1 == 0
        torch.testing.assert_close(before[unsupported], after[unsupported], rtol=0, atol=0)
        assert not torch.allclose(before[~unsupported], after[~unsupported])


def test_adapter_is_each_domains_own_and_starts_as_nothing():
    plain, made = encoder(adapter_rank=0), encoder(adapter_rank=2)
    assert not hasattr(plain.projections["specific"], "adapter")
    items = torch.arange(1, NUM_ITEMS + 1)
    before = made(items).specific_RD
    adapter = made.projections["specific"].adapter.weight
    assert (adapter == 0).all()
    with torch.no_grad():
        adapter[:, :2] = torch.randn(8, 2)
    after = made(items).specific_RD
    first, known = made.domain_I1[items] == 0, made.get_buffer("specific_present")[items]
    assert torch.equal(before[~first], after[~first])
    assert not torch.isclose(before[first & known], after[first & known]).all(dim=1).any()


def test_id_dropout_hides_ids_in_training_only_and_never_the_last_view():
    made = encoder(id_dropout=0.9)
    items = torch.tensor([1, 3]).repeat(200)
    made.train()
    hidden = (made(items).weight_R3[:, 2] == 0).view(200, 2).float().mean(dim=0)
    assert 0.8 < hidden[0] < 0.98
    assert hidden[1] == 0
    made.eval()
    assert (made(items).weight_R3[:, 2] > 0).all()


def test_centred_moves_domains_together_by_items_with_support_and_text_alone():
    known = catalogue()
    vectors, present = known.text[ItemView.AGNOSTIC]
    fitted = present & (known.support_I1 > 0)

    def centre(values: torch.Tensor, share: float = 1.0) -> torch.Tensor:
        offset = offsets((values, present), known.domain_I1, known.support_I1, share)
        return centred((values, present), known.domain_I1, offset)[0]

    whole = centre(vectors)
    for domain in range(2):
        torch.testing.assert_close(
            whole[fitted & (known.domain_I1 == domain)].mean(0), vectors[fitted].mean(0), rtol=0, atol=2e-3
        )
    assert (whole[~present] == 0).all()
    torch.testing.assert_close(centre(vectors, 0.0), vectors.half().float(), rtol=0, atol=0)
    changed = vectors.clone()
    changed[~fitted] += 5
    torch.testing.assert_close(centre(changed)[fitted], whole[fitted], rtol=0, atol=0)


def test_masked_softmax_with_nothing_to_choose_is_zero_and_has_no_nan_gradient():
    logit = torch.zeros(1, 3, requires_grad=True)
    weight = masked_softmax(logit, torch.zeros(1, 3, dtype=torch.bool))
    weight.sum().backward()
    assert weight.tolist() == [[0, 0, 0]]
    assert torch.isfinite(logit.grad).all()
