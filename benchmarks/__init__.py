"""What the figures in README and docs are made with."""

import sys

from vlmr1.device import load_npu

try:
    load_npu()  # as in vlmr1.stages: a broken extension would break every import of torch
except ValueError as error:
    sys.exit(f"benchmarks: {error}")
