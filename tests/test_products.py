"""oneDNN's products are PyTorch's own to rounding, forward and backward, packed or not."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from vlmr1 import products


@pytest.fixture(autouse=True)
def wherever_oneDNN_is(monkeypatch):
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this PyTorch has no oneDNN")
    monkeypatch.setattr(products, "slow_mkl", lambda: True)


@pytest.mark.parametrize("shape", [(5, 24), (2, 7, 24), (1, 1, 24)])
@pytest.mark.parametrize("bias", [True, False])
def test_values_and_gradients_are_pytorchs(shape, bias):
    torch.manual_seed(0)
    plain, swapped = nn.Linear(24, 40, bias=bias), nn.Linear(24, 40, bias=bias)
    swapped.load_state_dict(plain.state_dict())
    products.speed_up(model := nn.Sequential(swapped))
    assert type(model[0]) is products.Product
    one, two = (torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_() for _ in range(2))
    slope = torch.randn(*shape[:-1], 40)
    for layer, x in ((plain, one), (swapped, two)):
        (layer(x) * slope).sum().backward()
    assert torch.allclose(plain(one), swapped(two), atol=1e-6)
    assert torch.allclose(one.grad, two.grad, atol=1e-5)
    for p, q in zip(plain.parameters(), swapped.parameters(), strict=True):
        assert torch.allclose(p.grad, q.grad, atol=1e-5)


def test_packed_weights_serve_while_they_do_not_change_and_are_let_go(monkeypatch):
    monkeypatch.setattr(products, "WORTHWHILE", 1)
    model = nn.Sequential(nn.Linear(16, 8))
    products.speed_up(model)
    x = torch.randn(3, 16)
    with torch.no_grad(), products.packed(model, 3, lambda name: False):
        assert model[0].packed is not None
        assert torch.allclose(model(x), F.linear(x, model[0].weight, model[0].bias), atol=1e-6)
    assert model[0].packed is None
    with torch.no_grad():
        model[0].weight.zero_()
        assert torch.equal(model(x), model[0].bias.expand(3, -1))


def test_other_dtypes_take_pytorchs_own_way():
    x, weight = torch.randn(3, 16, dtype=torch.float64), torch.randn(8, 16, dtype=torch.float64)
    assert torch.equal(products.linear(x, weight), F.linear(x, weight))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert products.linear(x.float(), weight.float()).dtype == torch.bfloat16
