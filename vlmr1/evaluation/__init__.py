"""Evaluation: a model's answers over a source, and the figures they come to, each with n and a 95 % interval."""
