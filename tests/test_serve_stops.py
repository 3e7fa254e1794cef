"""`vlmr1 serve`: how a server is waited for and stopped, whatever the signal, and how a broken one is told of."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.conftest import environment, free_port
from tests.fake_server import Fake
from vlmr1.cli import main
from vlmr1.serving import launch
from vlmr1.serving.client import Server, models_of
from vlmr1.serving.commands import Serving
from vlmr1.serving.launch import running

# Stands in for vLLM's interpreter: serves what it is told to by its flags, or says why not and ends.
SERVER = f"""#!{sys.executable}
import subprocess, sys, time
sys.path.insert(0, {str(launch.Path(__file__).parent.parent)!r})
if "--broken" in sys.argv:
    print("line 1"); print("no such device"); sys.exit(3)
import os, signal, socket
from tests.fake_server import Fake
if "--stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
if "::1" in sys.argv:
    Fake.address_family = socket.AF_INET6
    bind = Fake.server_bind
    Fake.server_bind = lambda fake: (setattr(fake, "server_address", ("::1", fake.server_address[1])), bind(fake))
names = sys.argv[sys.argv.index("--served-model-name") + 1 : sys.argv.index("--host")]
child = subprocess.Popen(["sleep", "1000"])
print("child", child.pid, "key", os.environ.get("VLLM_API_KEY"), flush=True)
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


# Stands in for docker: a container goes on without its client, until it is removed by its name.
DOCKER = """#!{python}
import os, subprocess, sys
if sys.argv[1] == "version":
    {daemon} or sys.exit("Cannot connect to the Docker daemon")
    sys.exit()
if sys.argv[1] == "rm":
    os.kill(int(open(os.path.join({folder!r}, sys.argv[3])).read()), 9)
    sys.exit()
if {taken}:
    print("the name is in use"); sys.exit(125)
words = sys.argv[sys.argv.index("python3") + 1 :]
server = subprocess.Popen([{server!r}, *words], start_new_session=True)
open(os.path.join({folder!r}, sys.argv[sys.argv.index("--name") + 1]), "w").write(str(server.pid))
server.wait()
"""


@pytest.fixture
def docker(tmp_path, python, monkeypatch):
    """Gives a function that puts it on the path; its containers' ids lie in the folder that it returns."""

    def put(taken=False, daemon=True):
        folder = tmp_path / "bin"
        folder.mkdir()
        script = DOCKER.format(python=sys.executable, folder=str(tmp_path), server=python, taken=taken, daemon=daemon)
        (folder / "docker").write_text(script)
        (folder / "docker").chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
        return tmp_path

    return put


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


def gone(pid):
    until = time.monotonic() + 5
    while alive(pid) and time.monotonic() < until:
        time.sleep(0.05)
    return not alive(pid)


def test_a_container_does_not_outlive_its_client(checkpoint, docker, tmp_path, monkeypatch):
    monkeypatch.setenv("VLMR1_SERVER_KEY", "secret")
    port = free_port()
    containers = docker()
    with running(Serving(checkpoint, "vllm-ascend", port=port), tmp_path / "log", 30):
        server = int((containers / f"vlmr1-grpo-{port}").read_text())
        assert alive(server) and "key secret" in (tmp_path / "log").read_text()
    assert gone(server)


def test_a_container_of_the_same_name_is_left_alone(checkpoint, docker, tmp_path):
    port, sleeper = free_port(), subprocess.Popen(["sleep", "1000"])
    (docker(taken=True) / f"vlmr1-grpo-{port}").write_text(str(sleeper.pid))
    with (
        pytest.raises(ConnectionError, match="the name is in use"),
        running(Serving(checkpoint, "vllm-ascend", port=port), tmp_path / "log", 30),
    ):
        pass
    assert alive(sleeper.pid)
    sleeper.kill()
    sleeper.wait()


def test_a_docker_without_its_daemon_is_told_of_in_a_sentence(checkpoint, docker):
    docker(daemon=False)
    with pytest.raises(SystemExit, match=r"docker's daemon does not answer; start it, .*Cannot connect"):
        main(["serve", str(checkpoint), "--engine", "vllm-ascend", "--port", str(free_port())])


def test_a_server_does_not_outlive_a_command_that_is_killed(checkpoint, python, tmp_path):
    words = [sys.executable, "-m", "vlmr1.cli", "serve", str(checkpoint), "--python", python]
    words += ["--port", str(free_port()), "--log", str(tmp_path / "log")]
    started = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    assert f"starting vllm with {checkpoint}" in started.stderr.readline()
    assert "grpo is served" in started.stdout.readline()
    child = int((tmp_path / "log").read_text().split()[1])
    assert alive(child)
    started.kill()
    assert started.wait(5) == -signal.SIGKILL and gone(child)


def test_a_server_on_an_ipv6_address(checkpoint, python, tmp_path):
    with running(Serving(checkpoint, host="::1", port=free_port(), python=python), tmp_path / "log", 30) as server:
        assert server.url.startswith("http://[::1]:") and "grpo" in models_of(Server(server.url, "grpo"))


@pytest.mark.parametrize(
    ("signals", "flags", "code", "said"),
    [
        ([signal.SIGINT], "", 0, "stopped\n"),
        ([signal.SIGHUP], "", 129, ""),
        ([signal.SIGTERM], "", 143, ""),
        ([signal.SIGINT, signal.SIGINT], "--stubborn", 0, "stopped\n"),
    ],
)
def test_the_command_stops_cleanly(checkpoint, python, tmp_path, signals, flags, code, said):
    words = [sys.executable, "-m", "vlmr1.cli", "serve", str(checkpoint), "--python", python, f"--flags={flags}"]
    words += ["--port", str(free_port()), "--log", str(tmp_path / "log")]
    started = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment())
    assert "grpo is served at http://127.0.0.1:" in started.stdout.readline()
    for number in signals:
        started.send_signal(number)
        time.sleep(0.5)
    assert started.wait(15) == code and started.stdout.read() == said
    assert gone(int((tmp_path / "log").read_text().split()[1]))
