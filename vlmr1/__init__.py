"""vlmr1: GRPO reinforcement learning for vision-language models with rule-based rewards.

Nouns live in this package, verbs in `vlmr1.stages`. Importing it loads neither torch nor transformers.
"""

__version__ = "0.1.0"
