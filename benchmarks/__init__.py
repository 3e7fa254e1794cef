"""What the figures in README and docs are made with."""
