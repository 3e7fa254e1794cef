"""`vlmr1 serve`: the commands, how a server is waited for and stopped, and how a broken one is told of; bench-serve."""

import json
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import environment, free_port
from tests.fake_server import Fake
from vlmr1.cli import main
from vlmr1.serving import launch
from vlmr1.serving.bench import Load, Timed, bench, figures, table
from vlmr1.serving.client import Server, models_of
from vlmr1.serving.commands import Serving, command, remarks
from vlmr1.serving.harness import by_vllm, level_of
from vlmr1.serving.harness import command as harness_command
from vlmr1.serving.launch import running

# Stands in for vLLM's interpreter: serves what it is told to by its flags, or says why not and ends.
SERVER = f"""#!{sys.executable}
import subprocess, sys, time
sys.path.insert(0, {str(launch.Path(__file__).parent.parent)!r})
if "--broken" in sys.argv:
    print("line 1"); print("no such device"); sys.exit(3)
from tests.fake_server import Fake
names = sys.argv[sys.argv.index("--served-model-name") + 1 : sys.argv.index("--host")]
child = subprocess.Popen(["sleep", "1000"]); print("child", child.pid, flush=True)
time.sleep(0.3)
fake = Fake(models=dict.fromkeys(names, "vllm"), port=int(sys.argv[sys.argv.index("--port") + 1]))
fake.serve_forever()
"""


@pytest.fixture
def checkpoint(tmp_path):
    folder = tmp_path / "grpo"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


@pytest.fixture
def python(tmp_path):
    path = tmp_path / "python"
    path.write_text(SERVER)
    path.chmod(0o755)
    return str(path)


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
        "docker run --rm --name vlmr1-grpo-8000 --publish 127.0.0.1:8000:8000", "--device /dev/davinci1",
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
        (("--engine", "xllm"), "--image: engine xllm needs a tag"),
        (("--engine", "xllm", "--image", "i", "--dtype", "float16"), "--dtype: not with engine xllm"),
        (("--image", "i"), "--image: engine vllm runs in an environment"),
        (("--npus", "0"), "--npus: for containers alone"),
        (("--engine", "vllm-ascend", "--npus", "a"), "is no device's number"),
        (("--rollouts", "adapter"), r"--rank: trained\.lora\.r, for --rollouts adapter and only for it"),
        (("--rollouts", "nccl", "--rank", "8"), "--rank: .* only for it"),
        (("--rollouts", "adapter", "--rank", "1000"), "--rank 1000: vLLM takes 1 to 512"),
        (("--engine", "vllm-ascend", "--rollouts", "nccl"), "--rollouts: a container does not see"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_sentence(checkpoint, monkeypatch, arguments, said):
    monkeypatch.delenv("VLMR1_VLLM_PYTHON", raising=False)
    with pytest.raises(SystemExit, match=f"vlmr1 serve: .*{said}"):
        main(["serve", str(checkpoint), "--print", *arguments])


def test_an_adapter_of_other_weights_and_a_folder_without_any_are_refused(checkpoint, adapter, tmp_path, python):
    (adapter / "base.json").write_text('{"sha256": "0"}')
    with pytest.raises(ValueError, match="trained on other weights than those in"):
        command(Serving(checkpoint, adapters=(("a", adapter),), python=python))
    with pytest.raises(ValueError, match="no checkpoint folder"):
        command(Serving(tmp_path, python=python))
    (adapter / "adapter_config.json").write_text('{"r": 1024}')
    with pytest.raises(ValueError, match="rank 1024, and vLLM takes 512 at most; vlmr1 merge it"):
        command(Serving(checkpoint, adapters=(("a", adapter),), python=python))


def test_a_tower_that_vllm_reads_otherwise_is_noted(checkpoint):
    assert remarks(Serving(checkpoint)) == []
    config = {"model_type": "qwen2_5_vl", "vision_config": {"rope_parameters": {"rope_theta": 100.0}}}
    (checkpoint / "config.json").write_text(json.dumps(config))
    (said,) = remarks(Serving(checkpoint))
    assert "at base 10000, and the checkpoint has 100" in said


def alive(pid):
    """Whether a process runs; one that only waits to be asked after does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return bool(state) and not state.startswith("Z")


def test_a_server_is_waited_for_and_stopped_with_all_it_started(checkpoint, python, tmp_path):
    log = tmp_path / "log"
    with running(Serving(checkpoint, port=free_port(), python=python), log, 30) as server:
        names = models_of(Server(server.url, "grpo"))
        assert names[0] == "grpo" and names[1].startswith("grpo@") and len(names[1]) == 17
        child = int(log.read_text().split()[1])
        assert alive(child)
    assert server.process.poll() is not None
    until = time.monotonic() + 5
    while alive(child) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(child)


def test_a_broken_server_is_told_of_once_with_the_end_of_its_log(checkpoint, python, tmp_path, capfd):
    where = ["--python", python, "--log", str(tmp_path / "log"), "--port", str(free_port())]
    with pytest.raises(SystemExit, match=r"vllm ended with 3 before it answered; .*log:\n  line 1\n  no such"):
        main(["serve", str(checkpoint), *where, "--flags=--broken"])
    assert capfd.readouterr().out == ""
    with Fake() as fake, pytest.raises(SystemExit, match=r"not free on 127\.0\.0\.1"):
        main(["serve", str(checkpoint), "--python", python, "--port", str(fake.server_port)])


def test_the_command_stops_cleanly(checkpoint, python, tmp_path):
    words = [
        sys.executable,
        "-m",
        "vlmr1.cli",
        "serve",
        str(checkpoint),
        "--python",
        python,
        "--port",
        str(free_port()),
    ]
    words += ["--log", str(tmp_path / "log")]
    started = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment())
    assert "grpo is served at http://127.0.0.1:" in started.stdout.readline()
    started.send_signal(signal.SIGINT)
    assert started.wait(30) == 0 and started.stdout.read() == "stopped\n"
    child = int((tmp_path / "log").read_text().split()[1])
    assert not alive(child)


# bench-serve.


def test_figures_of_a_level():
    done = [Timed(1.0, 0.2, 5), Timed(3.0, 0.4, 14)]
    level = figures(done, 2, 4.0)
    assert level["rps"] == 0.5 and level["tokens_per_second"] == pytest.approx(19 / 4) and level["success"] == 0.5
    assert level["latency_mean"] == 2 and level["latency_p99"] == pytest.approx(2.98)
    assert level["ttft_mean"] == pytest.approx(0.3) and level["tpot_mean"] == pytest.approx(0.2)
    assert figures([], 3, 1.0) == {"requests": 3, "success": 0.0}


def test_a_server_that_fails_sometimes_is_measured_by_the_rest():
    with Fake(lambda body: "a b c d", slow=0.01) as fake:
        fake.faults = [None, 500]
        found = bench(Server(fake.url, "m"), Load((1, 4), rounds=2, size=(32, 16), tokens=4))
    assert found[1]["success"] == 0.5 and found[4]["success"] == 1 and fake.most == 4
    assert found[4]["requests"] == 8 and found[4]["latency_mean"] > found[4]["ttft_mean"] > 0.01
    urls = {body["messages"][0]["content"][0]["image_url"]["url"] for body in fake.requests}
    assert len(urls) == len(fake.requests) == 11 and all(body["ignore_eos"] for body in fake.requests)
    with pytest.raises(ConnectionError, match="gives no answer"):
        bench(Server("http://127.0.0.1:9/v1", "m"), Load((1,)))


def test_two_servers_side_by_side_with_theirs_beside(tmp_path, capsys):
    with Fake(lambda body: "a b c") as one, Fake(lambda body: "a b c", slow=0.05) as two:
        urls = ["--url", one.url, "--url", two.url, "--concurrency", "1,2", "--rounds", "1", "--picture", "32x32"]
        main(["bench-serve", *urls, "--json", str(tmp_path / "b.json"), "--plot", str(tmp_path / "b.png")])
        said = capsys.readouterr().out
        assert f"{two.url} over {one.url}" in said and "theirs, for comparison: xllm on an Ascend 910B" in said
        assert json.loads((tmp_path / "b.json").read_text())["servers"][two.url]["2"]["success"] == 1
        assert (tmp_path / "b.png").read_bytes()[:4] == b"\x89PNG"
        with pytest.raises(SystemExit, match="no whole number above 0"):
            main(["bench-serve", "--url", one.url, "--picture", "640"])
    assert "1138" in table({})


def test_vllms_own_harness(tmp_path, python):
    words = harness_command(
        python, Server("http://h:1/v1", "m"), tmp_path, Load((4,), tokens=9), 4, tmp_path / "r.json"
    )
    for flag, value in (("--base-url", "http://h:1"), ("--num-prompts", "16"), ("--random-output-len", "9")):
        assert words[words.index(flag) + 1] == value
    assert words[words.index("--random-mm-bucket-config") + 1] == "{(640, 640, 1): 1.0}" and words[-1] == "--ignore-eos"
    said = {"completed": 3, "failed": 1, "duration": 2.0, "request_throughput": 1.5, "output_throughput": 40.0}
    said |= {f"{of}_{name}_ms": 250.0 for of in ("mean", "p99") for name in ("ttft", "tpot", "e2el")}
    level = level_of(said)
    assert (level["requests"], level["success"], level["rps"], level["ttft_p99"]) == (4, 0.75, 1.5, 0.25)
    with pytest.raises(ConnectionError, match=r"vllm bench serve ended with"):
        by_vllm("/bin/false", Server("http://h:1/v1", "m"), tmp_path, Load((1,)))
    with pytest.raises(SystemExit, match="needs --tokenizer"):
        main(["bench-serve", "--url", "http://h:1/v1", "--harness", "vllm"])
