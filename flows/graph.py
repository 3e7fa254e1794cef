"""The graph as DVC has it, and what its results depend on. Nothing of it is written down a second time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any


def read_graph() -> tuple[dict[str, list[str]], set[str]]:
    """Stages of this folder with the stages they wait for, in running order, and those that DVC says are changed.

    Raises ValueError where this folder is no DVC repository with a pipeline.
    """
    import networkx
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            graph = repo.index.graph
            order = [s for s in networkx.dfs_postorder_nodes(graph) if s.cmd]
            waits = {s.addressing: sorted(d.addressing for d in graph.successors(s) if d.cmd) for s in order}
            return waits, set(repo.status()) & set(waits)
    except DvcException as error:
        raise ValueError(f"{Path.cwd()}: DVC cannot read the pipeline: {error}") from error


def data_stages() -> list[Any]:
    """What DVC tracks in this folder besides the graph. Raises ValueError where this folder is no DVC repository."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return [stage for stage in repo.index.stages if not stage.cmd]
    except DvcException as error:
        raise ValueError(f"{Path.cwd()}: DVC cannot read what it tracks: {error}") from error


def inputs_digest() -> str:
    """One digest of all that the graph's results follow from: data, code, parameters and commands.

    Raises ValueError that names an input that is not there.
    """
    from dvc.dependency import ParamsDependency
    from dvc.repo import Repo

    found: dict[str, Any] = {}
    with Repo() as repo:
        stages = [stage for stage in repo.index.stages if stage.cmd]
        made = [Path(out.fs_path) for stage in stages for out in stage.outs]
        for stage in stages:
            found[f"{stage.addressing} cmd"] = stage.cmd
            for dep in stage.deps:
                path = Path(dep.fs_path)
                if isinstance(dep, ParamsDependency):
                    found[f"{stage.addressing} params"] = dep.read_params()
                elif not any(path == one or one in path.parents or path in one.parents for one in made):
                    if not dep.exists:
                        raise ValueError(
                            f"{dep}: stage {stage.addressing} needs it, and it is not in the retraining's copy of the"
                            " project; track it by `dvc add` and git, or give an absolute path"
                        )
                    found[str(dep)] = str(dep.get_hash())
    return digest_of(found)


def digest_of(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
