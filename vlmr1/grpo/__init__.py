"""GRPO, group relative policy optimisation (arXiv 2402.03300): several answers to each question, each pushed by how
much better than its group's mean it scored.

The prompt and its picture are processed once a group, in the rollout and in training (`shared_prefix`).
"""
