"""Shared parts: a tiny real model with a few drawn pictures, and whole projects in which to run the pipeline."""

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import uuid
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["DVC_NO_ANALYTICS"] = "1"  # else every repository made here starts a process that asks for the network

import flows  # noqa: F401  what it sets, Prefect reads once, when the first test imports it
from vlmr1.settings import Compute, Trained

COMPUTE = Compute(
    device="auto",
    dtype="float32",
    attention="sdpa",
    quantize=None,
    activation_checkpointing=False,
    prompts_per_device=None,
    workers=0,
    on_out_of_memory="fail",
    deepspeed=None,
    launch=None,
)
ALL = Trained(freeze_vision=False, freeze_projector=False, lora=None)
ROOT = Path(__file__).parent.parent
LONGEST = ("pipeline", "processes", "retrain", "evaluation", "reproduce", "flow", "options", "interruptions")  # files
BIN = Path(sys.executable).parent

if threading.current_thread() is threading.main_thread():  # a job in the background would ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, each in the order of its own, so that processes side by side end together."""
    places = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(places)))


def default_params() -> str:
    """params.yaml as committed, whatever recipe lies over the working one."""
    show = ["git", "show", "HEAD:params.yaml"]
    return subprocess.run(show, cwd=ROOT, capture_output=True, check=True, text=True).stdout


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """(checkpoint folder, source): a random tiny Qwen2.5-VL and 24 samples over pictures of two sizes."""
    from vlmr1.families.tiny import build_image_processor, build_model, build_tokenizer
    from vlmr1.sample import Sample, Source
    from vlmr1.settings import TinyModel
    from vlmr1.tasks import rec
    from vlmr1.world.scenes import Layout, compose, draw

    folder = tmp_path_factory.mktemp("tiny")
    rng = random.Random(0)
    layout = Layout((1, 2), ("red", "green", "blue"), (21, 42), 7)
    samples = []
    (folder / "images").mkdir()
    for i in range(24):
        things = None
        while things is None:
            things = compose(rng, layout, "colours")
        picture = draw(things)
        if i % 3 == 0:
            picture = picture.crop((0, 0, 112, 84))  # 8 x 6 patches instead of 8 x 8
        picture.save(folder / "images" / f"{i}.png")
        name = " ".join([things[0].name] * (1 + i % 4))  # prompts of several lengths
        box = json.dumps([0, 0, 40 + i, 30 + i])
        samples.append(Sample(i, (f"{i}.png",), rec.problem(name), box, "rec", "iou", "s", "train", (picture.size,)))
    sizes = TinyModel(
        vocabulary=900,
        hidden_size=64,
        intermediate_size=96,
        layers=2,
        heads=2,
        vision_hidden_size=32,
        vision_intermediate_size=48,
        vision_depth=2,
        vision_heads=2,
        initializer_range=0.05,
        tie_word_embeddings=True,
    )
    corpus = [text for s in samples for text in (rec.prompt(s), rec.target(s, s.sizes[0]))]
    tokenizer = build_tokenizer(corpus, (rec.QUESTION, f" {rec.INSTRUCTION}"), 900)
    checkpoint = folder / "checkpoint"
    build_model(tokenizer, sizes, 0).save_pretrained(checkpoint)
    tokenizer.save_pretrained(checkpoint)
    build_image_processor(112 * 112).save_pretrained(checkpoint)
    return checkpoint, Source("s", "train", folder / "images", tuple(samples))


@pytest.fixture(scope="session")
def trained(tiny, tmp_path_factory):
    """The tiny model after a few seconds of supervision: its answers can mostly be read."""
    from vlmr1.settings import Optimisation
    from vlmr1.sft import SftTrainer
    from vlmr1.work import open_work

    checkpoint, source = tiny
    folder = tmp_path_factory.mktemp("trained")
    settings = Optimisation(
        learning_rate=5e-3,
        lr_scheduler_type="linear",
        decay_share=None,
        warmup_steps=5,
        weight_decay=0.0,
        adam_beta2=0.95,
        max_grad_norm=1.0,
        save_steps=100,
    )
    trainer = SftTrainer(
        checkpoint,
        [source],
        settings,
        ALL,
        COMPUTE,
        open_work(folder / "work", lambda: {}),
        max_pixels=112 * 112,
        seed=1,
        batch=8,
        steps=60,
    )
    trainer.run()
    trainer.save_policy(folder / "checkpoint")
    return folder / "checkpoint", source


@pytest.fixture(scope="session")
def s3_server():
    """The URL of a real S3 server over HTTP."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield f"http://127.0.0.1:{server.get_host_and_port()[1]}"
    server.stop()


@pytest.fixture
def bucket(s3_server, monkeypatch):
    """A client of a new bucket, and its name; the environment leads there."""
    import boto3

    for key, value in {
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ACCESS_KEY_ID": "k",
        "AWS_SECRET_ACCESS_KEY": "planted-secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(key, value)
    client, name = boto3.client("s3"), f"bucket-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=name)
    return client, name


@pytest.fixture(params=["folder", "s3"])
def store_url(request, tmp_path):
    """The URL of an empty store of each kind."""
    if request.param == "folder":
        return str(tmp_path / "store")
    return f"s3://{request.getfixturevalue('bucket')[1]}/releases"


def make_project(folder: Path, recipe: str | None = "recipes/smoke.yaml") -> Path:
    """A copy of what git tracks, as its own repository, with a recipe's params (the tests' profile unless told)."""
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout
    for name in filter(None, tracked.decode().split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("metrics/", "dvc.lock")):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    (folder / "params.yaml").write_text(default_params())
    if recipe is not None:
        run(["vlmr1", "apply", recipe], folder)
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "commit.gpgsign=false"]
    run([*git, "init", "-q"], folder)
    run([*git, "add", "-A"], folder)
    run([*git, "commit", "-q", "-m", "smoke"], folder)
    return folder


def free_port() -> int:
    """A port nobody listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def environment(**more: str) -> dict[str, str]:
    """The environment of a command in a project: this interpreter first, nothing of the tester's own settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "AWS_", "DVC_"))}
    # The copy's own package, not the one installed from the repository under test.
    return (
        kept
        | {"PATH": f"{BIN}:{os.environ['PATH']}", "DO_NOT_TRACK": "1", "DVC_NO_ANALYTICS": "1", "PYTHONPATH": "."}
        | more
    )


def run(command: list[str], folder: Path, **more: str) -> str:
    """Run a command in a project and return what it said; its output is the failure's message."""
    done = subprocess.run(
        command, cwd=folder, env=environment(**more), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, f"{' '.join(command)} exited {done.returncode}:\n{done.stdout[-4000:]}"
    return done.stdout
