"""A stage of two nodes that only says who took part, for tests: `python -m tests.meeting NAME`."""

import os
import sys
from pathlib import Path

from tests.conftest import COMPUTE
from vlmr1.launch import leave, start_processes, wait_for_all
from vlmr1.settings import Launch


def main(name: str) -> None:
    launch = Launch(nnodes=2, nproc_per_node=1, rendezvous=f"127.0.0.1:{os.environ['MEETING_PORT']}")
    start_processes(COMPUTE.model_copy(update={"launch": launch}), name, "tests.meeting", [name], told=True)
    wait_for_all()
    Path(f"{name}-{os.environ['RANK']}").write_text(os.environ["TORCHELASTIC_RUN_ID"])
    wait_for_all()
    leave()


if __name__ == "__main__":
    main(sys.argv[1])
