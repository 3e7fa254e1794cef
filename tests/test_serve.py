"""`vlmr1 serve`: the commands that it makes of a checkpoint."""

import json
import sys

import pytest

from vlmr1 import files
from vlmr1.cli import main
from vlmr1.files import digest_of_weights, sha256
from vlmr1.serving.commands import Serving, command, remarks


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "grpo"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def python():
    return sys.executable


@pytest.fixture
def adapter(tmp_path):
    folder = tmp_path / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text('{"r": 12}')
    return folder


def printed(capsys, checkpoint, *more):
    main(["serve", str(checkpoint), "--print", *more])
    return capsys.readouterr().out.strip()


def test_vllms_command(checkpoint, python, adapter, capsys, monkeypatch):
    monkeypatch.setenv("VLMR1_VLLM_PYTHON", python)
    said = printed(
        capsys, checkpoint, "--adapter", f"a={adapter}", "--dtype", "float16", "--pictures", "2", "--max-length", "900",
        "--flags=--enforce-eager",
    )  # fmt: skip
    assert said.startswith(f"VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 HF_HUB_OFFLINE=1 {python} -m vllm.entrypoints.openai")
    for part in (
        f"--model {checkpoint} --served-model-name grpo grpo@", "--host 127.0.0.1 --port 8000",
        "--generation-config vllm", "--dtype float16 --max-model-len 900",
        """--limit-mm-per-prompt '{"image": 2, "video": 0}'""",
        f"--enable-lora --max-lora-rank 16 --lora-modules a={adapter} --enforce-eager",
    ):  # fmt: skip
        assert part in said


@pytest.mark.parametrize(
    ("way", "opens", "flags"),
    [
        ("adapter", "VLLM_ALLOW_RUNTIME_LORA_UPDATING=1", "--enable-lora --max-lora-rank 64"),
        ("checkpoint", "VLLM_SERVER_DEV_MODE=1", "--generation-config vllm"),
        ("nccl", "VLLM_SERVER_DEV_MODE=1", """--weight-transfer-config '{"backend": "nccl"}'"""),
    ],
)
def test_a_server_of_rollouts(checkpoint, python, capsys, way, opens, flags):
    more = ("--rank", "64") if way == "adapter" else ()
    said = printed(capsys, checkpoint, "--python", python, "--rollouts", way, *more)
    assert f" {opens} {python}" in said and flags in said
    assert "--logprobs-mode processed_logprobs --enable-prefix-caching" in said
    assert "--logprobs-mode" not in printed(capsys, checkpoint, "--python", python)


def test_the_containers_lines(checkpoint, adapter, capsys):
    said = printed(capsys, checkpoint, "--engine", "vllm-ascend", "--npus", "0,1", "--adapter", f"a={adapter}")
    for part in (
        "docker run --rm --init --name vlmr1-grpo-8000 --env VLLM_API_KEY --publish 127.0.0.1:8000:8000",
        "--device /dev/davinci1",
        f"--volume {checkpoint}:/checkpoints/grpo:ro", f"--volume {adapter}:/adapters/a:ro",
        "quay.io/ascend/vllm-ascend:v0.10.0rc1 python3 -m vllm.entrypoints.openai.api_server",
        "--model /checkpoints/grpo", "--host 0.0.0.0", "--tensor-parallel-size 2", "--lora-modules a=/adapters/a",
    ):  # fmt: skip
        assert part in said
    image = "quay.io/jd_xllm/xllm-ai:tag"
    said = printed(capsys, checkpoint, "--engine", "xllm", "--image", image, "--name", "mine", "--port", "9")
    assert said.endswith(
        f"{image} xllm --model /checkpoints/mine --model_id mine --backend=vlm --devices=npu:0 --host 0.0.0.0 --port 9"
        " --communication_backend=hccl"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "no environment with vLLM is named; give --python"),
        (("--python", "/no/such"), "no such interpreter"),
        (("--adapter", "grpo"), "write NAME=DIR"),
        (("--adapter", "a=/nowhere"), r"no adapter_config\.json"),
        (("--adapter", "grpo=/nowhere"), "grpo, grpo would not all have names of their own"),
        (("--engine", "xllm"), "--image: engine xllm needs a tag"),
        (("--engine", "xllm", "--image", "i", "--dtype", "float16"), "--dtype: not with engine xllm"),
        (("--image", "i"), "--image: engine vllm runs in an environment"),
        (("--npus", "0"), "--npus: for containers alone"),
        (("--engine", "vllm-ascend", "--npus", "a"), "is no device's number"),
        (("--rollouts", "adapter"), r"--rank: is missing; --rollouts adapter needs trained\.lora\.r"),
        (("--rollouts", "nccl", "--rank", "8"), "--rank 8: belongs to --rollouts adapter; leave it out"),
        (("--port", "99999"), "--port 99999: ports are 1 to 65535"),
        (("--max-length", "0"), "--max-length 0: is to be at least 1"),
        (("--max-length", "2049"), r"--max-length 2049: the model reads 2048 tokens at most .*grpo/config\.json"),
        (("--pictures", "-1"), "--pictures -1: is to be at least 1"),
        (("--name", "a@b"), "--name a@b: give a name of letters"),
        (("--dtype", "float33"), "--dtype float33: vLLM knows auto, bfloat16"),
        (("--patience", "0"), "--patience 0: seconds above 0"),
        (("--rollouts", "adapter", "--rank", "1000"), "--rank 1000: vLLM takes 1 to 512"),
        (("--engine", "vllm-ascend", "--rollouts", "nccl"), "--rollouts: a container does not see"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_sentence(checkpoint, monkeypatch, arguments, said):
    monkeypatch.delenv("VLMR1_VLLM_PYTHON", raising=False)
    (checkpoint / "config.json").write_text('{"text_config": {"max_position_embeddings": 2048}}')
    with pytest.raises(SystemExit, match=f"vlmr1 serve: .*{said}"):
        main(["serve", str(checkpoint), "--print", *arguments])


def test_an_adapter_of_other_weights_and_a_folder_without_any_are_refused(checkpoint, adapter, tmp_path, python):
    (adapter / "base.json").write_text('{"sha256": "0"}')
    with pytest.raises(ValueError, match="trained on other weights than those in"):
        command(Serving(checkpoint, adapters=(("a", adapter),), python=python))
    with pytest.raises(SystemExit, match=r"vlmr1 serve: /no/such: no such folder; .*vlmr1 pull"):
        main(["serve", "/no/such"])
    with pytest.raises(ValueError, match="no checkpoint folder"):
        command(Serving(tmp_path, python=python))
    (adapter / "adapter_config.json").write_text('{"r": 1024}')
    with pytest.raises(ValueError, match="rank 1024, and vLLM takes 512 at most; vlmr1 merge it"):
        command(Serving(checkpoint, adapters=(("a", adapter),), python=python))


def test_a_key_is_never_shown_and_pictures_are_fetched_from_nowhere(checkpoint, python, capsys, monkeypatch):
    monkeypatch.setenv("VLMR1_SERVER_KEY", "secret")
    for more in (("--python", python), ("--engine", "vllm-ascend"), ("--engine", "xllm", "--image", "i")):
        assert "secret" not in printed(capsys, checkpoint, *more)
    assert "--allowed-media-domains nowhere.invalid" in printed(capsys, checkpoint, "--python", python)
    assert "--allowed-media" not in printed(capsys, checkpoint, "--engine", "vllm-ascend")


def test_what_is_printed_is_what_would_run(checkpoint, python, capsys, monkeypatch):
    """The key by the name of what holds it, and what people should know beside it."""
    monkeypatch.delenv("VLMR1_SERVER_KEY", raising=False)
    words = ["serve", str(checkpoint), "--print", "--python", python, "--host", "0.0.0.0"]
    main(words)
    said = capsys.readouterr()
    assert "VLLM_API_KEY" not in said.out and "note: whoever reaches 0.0.0.0:8000 can ask" in said.err
    monkeypatch.setenv("VLMR1_SERVER_KEY", "secret")
    main(words)
    said = capsys.readouterr()
    assert f' VLLM_API_KEY="$VLMR1_SERVER_KEY" {python} -m vllm' in said.out and not said.err


def test_weights_are_read_once(checkpoint, adapter, python, capsys, monkeypatch):
    (adapter / "base.json").write_text(json.dumps({"sha256": digest_of_weights(checkpoint)}))
    read = []
    monkeypatch.setattr(files, "sha256", lambda path: read.append(path.name) or sha256(path))
    printed(capsys, checkpoint, "--python", python, "--adapter", f"a={adapter}", "--adapter", f"b={adapter}")
    assert read == ["model.safetensors"]


def test_a_container_is_published_at_an_address(checkpoint, capsys):
    said = printed(capsys, checkpoint, "--engine", "vllm-ascend", "--host", "localhost")
    assert "--publish 127.0.0.1:8000:8000" in said
    assert "--publish '[::1]:8000:8000'" in printed(capsys, checkpoint, "--engine", "vllm-ascend", "--host", "::1")
    with pytest.raises(SystemExit, match=r"--host node7: docker publishes at an address; give e\.g\. 127"):
        printed(capsys, checkpoint, "--engine", "vllm-ascend", "--host", "node7")


def test_whom_a_server_answers_is_said(checkpoint, monkeypatch):
    monkeypatch.delenv("VLMR1_SERVER_KEY", raising=False)
    (said,) = remarks(Serving(checkpoint, host="0.0.0.0", rollouts="checkpoint"))
    assert "whoever reaches 0.0.0.0:8000 can change this server's weights" in said
    assert "VLMR1_SERVER_KEY sets a key" in remarks(Serving(checkpoint, host="::"))[0]
    monkeypatch.setenv("VLMR1_SERVER_KEY", "k")
    assert remarks(Serving(checkpoint, host="::")) == []
    assert "asks for no key" in remarks(Serving(checkpoint, "xllm", host="0.0.0.0", image="i"))[0]


def test_a_tower_that_vllm_reads_otherwise_is_noted(checkpoint):
    assert remarks(Serving(checkpoint)) == []
    config = {"model_type": "qwen2_5_vl", "vision_config": {"rope_parameters": {"rope_theta": 100.0}}}
    (checkpoint / "config.json").write_text(json.dumps(config))
    (said,) = remarks(Serving(checkpoint))
    assert "at base 10000, and the checkpoint has 100" in said
