"""Prefect flows over DVC's graph. They read the graph and the files stages write; they never import torch."""
