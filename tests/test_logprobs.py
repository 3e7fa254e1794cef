"""Log-probs asked of the head in pieces, against the plain log softmax of all logits."""

import math
import subprocess
import sys

import pytest
import torch
from torch import nn

from tests.conftest import ROOT, environment
from vlmr1.grpo import logprobs
from vlmr1.grpo.logprobs import (
    LogProbHead,
    Question,
    asking,
    logits_logprobs,
    make_answering,
    never_tensor,
    token_logprobs,
)

N, H, V = 11, 6, 17  # positions, hidden size, vocabulary
NEVER = never_tensor([2, 16], torch.device("cpu"))


@pytest.fixture
def drawn():
    """Hidden states, a head's weight and bias, tokens that are not barred; fp64."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (
        torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_() for size in ((N, H), (V, H), (V,))
    )
    return hidden, weight, bias, torch.randint(3, 16, (N,), generator=generator)


def plain(hidden, weight, bias, tokens, temperature):
    logits = nn.functional.linear(hidden, weight, bias) / temperature
    logs = logits.index_fill(-1, NEVER, -math.inf).log_softmax(-1)
    entropy = -(logs.exp() * logs.masked_fill(logs == -math.inf, 0)).sum(-1)
    return logs.gather(-1, tokens[:, None])[:, 0], entropy


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("rows", [1, 4, N - 1, N, 100])
def test_pieces_make_the_whole(drawn, monkeypatch, rows, with_bias):
    """Values and gradients, whether the logits are kept for the backward pass or made again."""
    hidden, weight, bias, tokens = drawn
    bias = bias if with_bias else None
    monkeypatch.setattr(logprobs, "PIECE", rows * V)
    inputs = [hidden, weight, bias] if with_bias else [hidden, weight]
    ours, entropy = token_logprobs(hidden, weight, bias, tokens, 0.7, NEVER)
    theirs, expected = plain(hidden, weight, bias, tokens, 0.7)
    assert torch.allclose(ours, theirs, atol=1e-12) and torch.allclose(entropy, expected, atol=1e-12)
    assert not entropy.requires_grad
    weights = torch.randn(N, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    pairs = zip(
        torch.autograd.grad((ours * weights).sum(), inputs),
        torch.autograd.grad((theirs * weights).sum(), inputs),
        strict=True,
    )
    assert all(torch.allclose(mine, right, atol=1e-12) for mine, right in pairs)


@pytest.mark.parametrize("rows", [3, N])
def test_gradcheck(drawn, monkeypatch, rows):
    hidden, weight, bias, tokens = drawn
    monkeypatch.setattr(logprobs, "PIECE", rows * V)
    assert torch.autograd.gradcheck(lambda *x: token_logprobs(*x, tokens, 0.7, NEVER)[0], (hidden, weight, bias))


def test_only_what_is_trained_gets_a_gradient(drawn):
    """Under adapters the head is frozen; its weight's gradient would cost a second matrix."""
    hidden, weight, _, tokens = drawn
    frozen = weight.detach()
    token_logprobs(hidden, frozen, None, tokens, 1.0, NEVER)[0].sum().backward()
    assert hidden.grad is not None and frozen.grad is None


def test_barred_tokens_have_no_probability_and_no_gradient(drawn):
    hidden, weight, bias, tokens = drawn
    logps, _ = token_logprobs(hidden, weight, bias, tokens, 1.0, NEVER)
    logps.sum().backward()
    assert (weight.grad[NEVER] == 0).all() and (bias.grad[NEVER] == 0).all()
    assert (weight.grad[3:16] != 0).any(1).all()
    everything = torch.stack(
        [token_logprobs(hidden, weight, bias, torch.full((N,), v), 1.0, NEVER)[0] for v in range(V)], dim=1
    ).exp()  # (N, V)
    assert (everything[:, NEVER] == 0).all()
    assert torch.allclose(everything.sum(1), torch.ones(N, dtype=torch.float64))


def test_temperature_flattens(drawn):
    hidden, weight, bias, tokens = drawn
    entropies = [token_logprobs(hidden, weight, bias, tokens, t, NEVER)[1].mean() for t in (0.5, 1.0, 2.0, 1000.0)]
    assert entropies == sorted(entropies)
    assert entropies[-1] == pytest.approx(math.log(V - len(NEVER)), abs=1e-4)


def test_logits_already_there_say_the_same(drawn):
    hidden, weight, bias, tokens = drawn
    ours = token_logprobs(hidden, weight, bias, tokens, 0.7, NEVER)
    theirs = logits_logprobs(nn.functional.linear(hidden, weight, bias), tokens, 0.7, NEVER)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(ours, theirs, strict=True))
    assert not theirs[1].requires_grad


def test_no_position_at_all(drawn):
    hidden, weight, bias, tokens = drawn
    logps, entropy = token_logprobs(hidden[:0], weight, bias, tokens[:0], 1.0, NEVER)
    assert logps.shape == entropy.shape == (0,)
    logps.sum().backward()
    assert (weight.grad == 0).all()


@pytest.mark.parametrize("rows", [3, N])
def test_half_precision_answers_in_fp32(drawn, monkeypatch, rows):
    """Under autocast, and with weights of half precision: logits are half, what is made of them is not."""
    monkeypatch.setattr(logprobs, "PIECE", rows * V)
    hidden, weight, bias, tokens = (t.detach().to(torch.float32) if t.is_floating_point() else t for t in drawn)
    right, sure = plain(hidden, weight, bias, tokens, 0.7)
    for parameter in (hidden, weight, bias):
        parameter.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        logps, entropy = token_logprobs(hidden, weight, bias, tokens, 0.7, NEVER)
    assert logps.dtype == entropy.dtype == torch.float32
    assert torch.allclose(logps, right, atol=0.1) and torch.allclose(entropy, sure, atol=0.05)
    logps.sum().backward()
    assert all(p.grad.dtype == torch.float32 and p.grad.isfinite().all() for p in (hidden, weight, bias))
    halves = [p.detach().bfloat16().requires_grad_() for p in (hidden, weight, bias)]
    logps, _ = token_logprobs(*halves, tokens, 0.7, NEVER)
    assert logps.dtype == torch.float32 and torch.allclose(logps, right, atol=0.1)
    logps.sum().backward()
    assert all(p.grad.dtype == torch.bfloat16 and p.grad.isfinite().all() for p in halves)


class Model:
    def __init__(self, head):
        self.head = head

    def get_output_embeddings(self):
        return self.head


def test_the_head_answers_while_it_is_asked(drawn):
    hidden, weight, bias, tokens = drawn
    head = nn.Linear(H, V).double()
    head.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
    logits = head(hidden)
    model = Model(head)
    make_answering(model)
    make_answering(model)  # asked for twice, it stays what it is
    assert isinstance(head, LogProbHead) and head.state_dict().keys() == {"weight", "bias"}
    assert torch.equal(head(hidden), logits)
    with pytest.raises(KeyError), asking(model, Question(tokens, 0.7, NEVER)):
        answer = head(hidden[None])  # (1, N, H) in, (1, N, 2) out
        raise KeyError
    assert answer.shape == (1, N, 2)
    assert torch.allclose(answer[0, :, 0], plain(hidden, weight, bias, tokens, 0.7)[0])
    assert torch.equal(head(hidden), logits)


def test_a_head_of_another_kind_is_refused():
    with pytest.raises(ValueError, match="Sequential"):
        make_answering(Model(nn.Sequential(nn.Linear(H, V))))


MEMORY = """
import resource, torch
from vlmr1.grpo.logprobs import never_tensor, token_logprobs
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
hidden = torch.randn(2048, 64, generator=generator, requires_grad=True)
weight = torch.randn(152_000, 64, generator=generator, requires_grad=True)
tokens = torch.randint(0, 152_000, (2048,), generator=generator)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
logps, _ = token_logprobs(hidden, weight, None, tokens, 1.0, never_tensor([5], torch.device("cpu")))
logps.sum().backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
def test_a_large_vocabulary_fits():
    """Its logits alone would take 1.2 GB, and their gradients as much again."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], cwd=ROOT, env=environment(), capture_output=True, text=True, check=True
    )
    peak = int(done.stdout) / 2**20  # kilobytes to gigabytes
    print(f"152,000 tokens x 2,048 positions: the peak rises by {peak:.2f} GB")
    assert peak < 1.2
