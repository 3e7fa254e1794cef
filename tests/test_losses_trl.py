"""The losses against TRL's own `GRPOTrainer._compute_loss`: the same values and gradients. Run by `pytest -m trl`.

The trainer is a real one over a random tiny language model, built through `GRPOConfig`. Only its forward pass is
replaced, by log-probs drawn here, so that everything after it is TRL's code.
"""

import pytest
import torch

from vlmr1.grpo.losses import policy_loss

pytestmark = pytest.mark.trl

TYPES = ["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo"]
MICRO_BATCHES, GROUP, WIDTH, LONGEST = 3, 4, 11, 16  # micro-batches of one group each


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A random Qwen2 with a tokenizer of a few words, as a folder."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    folder = tmp_path_factory.mktemp("qwen2")
    words = Tokenizer(models.WordLevel({"<pad>": 0, "<end>": 1, "a": 2, "b": 3}, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<pad>").save_pretrained(folder)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_attention_heads": 2, "num_key_value_heads": 2}
    config = Qwen2Config(vocab_size=4, num_hidden_layers=1, eos_token_id=1, pad_token_id=0, **sizes)
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def trl_trainer(checkpoint, loss_type, options):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    config = GRPOConfig(
        output_dir=str(checkpoint / "out"),
        use_cpu=True,
        bf16=False,
        report_to="none",
        per_device_train_batch_size=GROUP,
        gradient_accumulation_steps=MICRO_BATCHES,
        num_generations=GROUP,
        max_completion_length=LONGEST,
        loss_type="grpo" if loss_type == "gspo" else loss_type,
        importance_sampling_level="sequence" if loss_type == "gspo" else "token",
        **options,
    )
    rows = Dataset.from_dict({"prompt": ["a b"] * 4})
    trainer = GRPOTrainer(str(checkpoint), lambda completions, **_: [0.0] * len(completions), config, rows)
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = MICRO_BATCHES  # the training loop would set it
    return trainer


def step(seed):
    """Log-probs (new, old, reference), advantages and mask of a step, (B, G, T); two completions are masked out."""
    torch.manual_seed(seed)
    shape = (MICRO_BATCHES, GROUP, WIDTH)
    logps = -3 * torch.rand(shape)
    lengths = torch.randint(1, WIDTH + 1, shape[:2])
    lengths[0, 1] = lengths[2, 3] = 0
    mask = torch.arange(WIDTH) < lengths[..., None]
    old, reference = (logps + scale * torch.randn(shape) for scale in (0.6, 1.5))
    return *(t.where(mask, 0.0) for t in (logps, old, reference)), torch.randn(shape[:2]), mask


def theirs(trainer, logps, old, reference, advantages, mask):
    """(loss, its gradient by the log-probs), summed over the step's micro-batches as backward passes would."""
    leaf = logps.clone().requires_grad_()
    total = torch.zeros(())
    for b in range(MICRO_BATCHES):
        ids = torch.full((GROUP, WIDTH), 2)
        inputs = {
            "prompt_ids": ids[:, :2],
            "prompt_mask": torch.ones_like(ids[:, :2]),
            "completion_ids": ids,
            "completion_mask": mask[b].int(),
            "advantages": advantages[b],
            "old_per_token_logps": old[b],
            "ref_per_token_logps": reference[b],
            "num_items_in_batch": mask.sum(),
        }
        answer = leaf[b], torch.zeros_like(leaf[b]), None  # log-probs, entropies, no auxiliary loss
        trainer._get_per_token_logps_and_entropies = lambda *_, answer=answer, **__: answer
        total = total + trainer._compute_loss(trainer.model, inputs)
    total.backward()
    return total.detach(), leaf.grad


def ours(loss_type, options, logps, old, reference, advantages, mask):
    leaf = logps.clone().requires_grad_()
    shares = [
        policy_loss(
            leaf[b : b + 1],
            old[b : b + 1],
            advantages[b : b + 1],
            mask[b : b + 1],
            loss_type=loss_type,
            **options,
            reference_logps=reference[b : b + 1] if options["beta"] else None,
            total_tokens=int(mask.sum()),
            total_completions=advantages.numel(),
            max_completion_length=LONGEST,
        )
        for b in range(MICRO_BATCHES)
    ]
    total = sum(share.value for share in shares)
    total.backward()
    return total.detach(), leaf.grad, shares


@pytest.mark.parametrize("loss_type", TYPES)
@pytest.mark.parametrize("by_ratio", [False, True])
@pytest.mark.parametrize("beta", [0.0, 0.04])
@pytest.mark.parametrize("delta", [None, 1.6])
@pytest.mark.parametrize("epsilon_high", [None, 0.28, 3.0])
def test_value_and_gradient_are_trls(checkpoint, loss_type, beta, delta, epsilon_high, by_ratio):
    options = {"epsilon": 0.2, "epsilon_high": epsilon_high, "delta": delta, "beta": beta}
    options["use_bias_correction_kl"] = by_ratio  # False: the KL of the GRPO paper; True: TRL's default
    trainer = trl_trainer(checkpoint, loss_type, options)
    worst_value = worst_gradient = 0.0
    for seed in range(5):
        data = step(seed)
        value, gradient = theirs(trainer, *data)
        our_value, our_gradient, shares = ours(loss_type, options, *data)
        assert gradient.abs().max() > 1e-3  # there is something to compare
        worst_value = max(worst_value, (value - our_value).abs().item())
        worst_gradient = max(worst_gradient, (gradient - our_gradient).abs().max().item())
        figures = {name: trainer._metrics["train"][name][-MICRO_BATCHES:] for name in trainer._metrics["train"]}
        for b, share in enumerate(shares):
            if beta:
                assert share.kl / share.tokens == pytest.approx(figures["kl"][b], rel=1e-5)
            if loss_type not in ("gspo", "cispo") and delta is None:  # the same tokens counted
                assert share.clipped_low / share.tokens == pytest.approx(figures["clip_ratio/low_mean"][b])
                assert share.clipped_high / share.tokens == pytest.approx(figures["clip_ratio/high_mean"][b])
    assert worst_value < 1e-6
    assert worst_gradient < 1e-6
