"""Prefect flows over DVC's graph. They read the graph and the files stages write; they never import torch."""

import os

# Here because Prefect reads its settings once, when it is imported, and because what is started inherits them.
# Prefect gives a server that it starts by itself 20 seconds; making its tables takes a slow machine longer.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "300")
os.environ.setdefault("DVC_NO_ANALYTICS", "1")  # a run of the night tells nobody
