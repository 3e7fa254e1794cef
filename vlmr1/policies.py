"""The four policies that a run compares, by the name of their folders and stages."""

LABELS = {
    "base": "base",
    "sft-samples": "SFT, equal samples",
    "sft-compute": "SFT, equal compute",
    "grpo": "GRPO",
}
