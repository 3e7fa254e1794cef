"""The page's server over HTTP: what it answers, what it refuses, and that answers stream."""

import base64
import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from importlib import resources

import httpx
import pytest
import torch
from PIL import Image
from starlette.testclient import TestClient

from tests.fake_server import Fake
from tests.pages import ANSWER, Parrot, png, question, serving
from tests.releases import release
from vlmr1.cli import main
from vlmr1.device import Device
from vlmr1.playground import command, naming
from vlmr1.playground.asking import Local, Served, Stopped, told_apart
from vlmr1.playground.questions import question_of
from vlmr1.playground.server import page
from vlmr1.release.store import open_store
from vlmr1.serving.client import Server
from vlmr1.tasks import TASKS


def client(*models, run=None, names=("testserver",)):
    return TestClient(page(models, run, names))


def lines(reply):
    assert reply.status_code == 200, reply.text
    return [json.loads(line) for line in reply.text.splitlines()]


def done(client, **more):
    return lines(client.post("/ask", json=question(**more)))[-1]["done"]


def test_an_answer_is_read_and_rewarded_as_in_training():
    shown = done(client(Parrot()))
    assert shown["thinking"] == "I look for it." and shown["boxes"] == [{"box": [10, 20, 50, 60], "label": "cat"}]
    assert shown["true_boxes"] == [{"box": [10, 20, 50, 60], "label": ""}] and shown["problems"] == []
    assert shown["rewards"]["accuracy"] == {"value": 1.0, "parsed": True, "reason": "IoU 1.000"}
    assert shown["total"] == 2.0 and shown["judged"] == "a hit, for the IoU is above 0.5"


def test_without_a_truth_only_the_form_is_rewarded():
    shown = done(client(Parrot("a box at [1, 2, 3, 4]")), truth="")
    assert set(shown["rewards"]) == {"format"} and shown["total"] is None
    assert shown["problems"]


@pytest.mark.parametrize(
    ("task", "text", "truth", "said", "pictures", "accuracy"),
    [
        ("ovd", "cat, dog", '[{"bbox_2d": [10, 20, 50, 60], "label": "cat"}]', ANSWER, 1, 1.0),
        ("math", "how many?", "4", "<think>x</think><answer>4</answer>", 2, 1.0),
        (
            "gui",
            "tapped Save; a defect?",
            "No Defect",
            "<think>x</think><answer>Navigation Logic Error</answer>",
            2,
            0,
        ),
    ],
)
def test_every_task_is_asked_in_its_own_words(task, text, truth, said, pictures, accuracy):
    parrot = Parrot(said)
    shown = done(client(parrot), task=task, text=text, truth=truth, pictures=[png()] * pictures)
    assert shown["rewards"]["accuracy"]["value"] == accuracy
    sample = parrot.asked[0].sample
    assert parrot.asked[0].prompt == TASKS[task].prompt(sample) and len(parrot.asked[0].pictures) == pictures


@pytest.mark.parametrize(
    ("more", "field", "said"),
    [
        ({"task": "vqa"}, "task", "task: 'vqa' is not known; one of rec"),
        ({"text": "  "}, "text", "Write an expression, e.g. the red square."),
        ({"pictures": []}, "pictures", "The task rec takes one picture; none is here."),
        ({"pictures": [png()] * 2}, "pictures", "The task rec takes one picture; 2 are here."),
        ({"task": "gui"}, "pictures", "The task gui takes a pair of pictures; 1 is here."),
        ({"task": "gui", "pictures": [png()] * 3}, "pictures", "The task gui takes a pair of pictures; 3 are here."),
        ({"pictures": ["%%"]}, "pictures", "picture 1: "),
        ({"pictures": [base64.b64encode(b"GIF89a....").decode()]}, "pictures", "picture 1: GIF, save it as one of"),
        ({"pictures": [png((8_000, 7_000))]}, "pictures", "56,000,000 pixels, more than 50,000,000"),
        (
            {"task": "math", "pictures": [png((6_000, 5_000))] * 2},
            "pictures",
            "picture 2: 30,000,000 pixels, more than 20,000,000",
        ),
        ({"truth": "[1, 2]"}, "truth", "'[1, 2]' is not [x0, y0, x1, y1], nor None."),
        ({"reward": "mcq"}, "reward", "reward: 'mcq' is not known for task rec"),
        ({"longest": 10**9}, "longest", "A whole number from 1 to 4,096 is needed."),
        ({"seed": 1.5}, "seed", "A whole number from 0 to 2,147,483,648 is needed."),
        ({"temperature": None}, "temperature", "A number from 0 to 2 is needed."),
        ({"model": 7}, None, "model: a number from 0 to 0 is needed"),
        ({"text": "a <image> b <image>"}, "text", "The question says <image> 2 times and has 1 pictures."),
    ],
)
def test_a_faulty_question_gets_a_sentence_for_its_field(more, field, said):
    reply = client(Parrot()).post("/ask", json=question(**more))
    assert reply.status_code == 400 and said in reply.text and "\n" not in reply.text
    assert reply.headers.get("X-Field") == field


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize(("fault", "said"), [(FloatingPointError("broken"), "broken"), (KeyError("x"), "terminal")])
def test_a_model_that_fails_leaves_nobody_waiting(fault, said):
    class Failing(Parrot):
        def ask(self, question, told):
            raise fault

    assert said in lines(client(Failing()).post("/ask", json=question()))[-1]["error"]


def test_no_part_of_an_address_reaches_a_file_and_no_other_site_can_ask():
    here = client(Parrot())
    for address in ("/../server.py", "/%2e%2e/server.py", "/page/index.html", "/etc/passwd", "/rollouts/about"):
        assert here.get(address).status_code == 404
    assert here.get("/facts", headers={"Host": "elsewhere.example"}).status_code == 403
    for site, status in {"same-origin": 200, "none": 200, "cross-site": 403, "same-site": 403}.items():
        reply = here.get("/facts", headers={"Sec-Fetch-Site": site})  # as browsers say whose page asks
        assert reply.status_code == status and reply.headers["cross-origin-resource-policy"] == "same-origin"
    plain = here.post("/ask", content=json.dumps(question()), headers={"Content-Type": "text/plain"})
    assert plain.status_code == 400 and "application/json is needed" in plain.text
    assert "access-control-allow-origin" not in here.post("/ask", json=question()).headers


def test_the_size_of_a_picture_is_that_of_its_stored_pixels():
    here, kind = client(Parrot()), {"Content-Type": "application/octet-stream"}
    turned = Image.Exif()
    turned[274] = 6  # a quarter turn, as telephones note it
    photo = base64.b64decode(png((60, 20), "JPEG", exif=turned))
    assert here.post("/size", content=photo, headers=kind).json() == [60, 20]
    reply = here.post("/size", content=b"GIF89a....", headers=kind)
    assert (reply.status_code, reply.text) == (
        400,
        "GIF, save it as one of JPEG, PNG, WEBP, BMP; give a PNG, JPEG, WebP or BMP file",
    )
    assert here.post("/size", content=photo, headers={"Content-Type": "text/plain"}).status_code == 400


def test_the_page_needs_nothing_from_elsewhere():
    here = client(Parrot())
    files = [one.name for one in resources.files("vlmr1.playground").joinpath("page").iterdir()]
    assert "start.js" in files
    for name in ("", *files):
        reply = here.get(f"/{name}")
        assert reply.status_code == 200 and "default-src 'self'" in reply.headers["content-security-policy"]
        assert "//" not in reply.text.replace("http://www.w3.org/2000/svg", "").replace("// ", "")


def test_the_examples_are_drawn_and_can_be_asked():
    here = client(Parrot())
    examples = here.get("/examples").json()
    assert {one["task"] for one in examples} == set(TASKS)
    for one in examples:
        pictures = [address.partition(",")[2] for address in one["pictures"]]
        asked = {key: one[key] for key in ("task", "text", "truth", "reward")} | {"pictures": pictures}
        assert "done" in lines(here.post("/ask", json=asked))[-1], one["name"]


@pytest.fixture
def served():
    with serving() as serve:
        yield serve


def test_answers_stream_and_stop_when_nobody_waits(served):
    parrot = Parrot(" ".join(["word"] * 400), wait=0.02)
    address = served(page([parrot], None, command.LOOPBACK))
    with httpx.stream("POST", f"{address}/ask", json=question(), timeout=20) as reply:
        texts = []
        for line in reply.iter_lines():
            texts.append(json.loads(line)["more"])
            if len(texts) == 3:
                break
    assert texts == ["word", " word", " word"]
    assert parrot.stopped.wait(5)


def test_only_so_many_questions_hold_their_pictures_at_once(served):
    class Counting(Parrot):
        together = most = 0

        def ask(self, question, told):
            self.together += 1
            self.most = max(self.most, self.together)
            time.sleep(0.1)
            self.together -= 1
            return super().ask(question, told)

    model = Counting()
    address = served(page([model], None, command.LOOPBACK))
    with ThreadPoolExecutor(6) as pool:
        sent = [question(text="") if number == 0 else question() for number in range(6)]
        replies = list(pool.map(lambda one: httpx.post(f"{address}/ask", json=one, timeout=20), sent))
    assert [reply.status_code for reply in replies] == [400] + [200] * 5 and model.most == 2


def test_a_checkpoint_streams_its_tokens_and_ends_with_what_vlmr1_ask_says(trained):
    from vlmr1.ask import ask

    checkpoint, source = trained
    sample = source.samples[1]
    path = source.picture(sample)
    text = sample.problem.removeprefix(TASKS["rec"].QUESTION).strip(" .")
    picture = base64.b64encode(path.read_bytes()).decode()
    local = Local("tiny", checkpoint)
    said = lines(client(local).post("/ask", json=question(text=text, truth="", pictures=[picture], longest=256)))
    texts = [line["more"] for line in said if "more" in line]
    completion, answer = ask(checkpoint, path, text)
    assert len(texts) > 3 and completion.startswith("".join(texts))
    assert said[-1]["done"]["text"] == completion
    assert [one["box"] for one in said[-1]["done"]["boxes"]] == [[round(v, 2) for v in box] for box in answer.boxes]


def test_a_checkpoint_runs_in_the_dtype_that_evaluate_settles(trained, monkeypatch):
    monkeypatch.setattr("vlmr1.device.settle", lambda _: Device("cpu", "gloo", "bfloat16", "sdpa", "for this test"))
    local = Local("tiny", trained[0])
    assert {one.dtype for one in local.policy.bare.parameters()} == {torch.bfloat16} and not local.policy.bare.training
    assert done(client(local), longest=2)["tokens"] <= 2


def test_a_server_on_this_machine_is_asked_past_the_environments_proxy(monkeypatch):
    with Fake(lambda body: ANSWER) as fake:
        for name in ("http_proxy", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:9")
        assert done(client(Served(Server(fake.url, "m"), None)))["thinking"]


def test_a_server_is_asked_in_streams_with_pictures_as_its_family_resizes_them(trained):
    from vlmr1.families import load_family

    family = load_family(trained[0], None)
    with Fake(lambda body: ANSWER) as fake:
        plain, like = (Served(Server(fake.url, "m"), one) for one in (None, family))
        shown = [done(client(model), pictures=[png((300, 200))]) for model in (plain, like)]
    seen = family.picture(Image.new("RGB", (300, 200)), "key").size
    assert [one["frame"] for one in shown] == [[300, 200], list(seen)] and seen != (300, 200)
    scale = 300 / shown[1]["frame"][0]
    left, carried = (one["boxes"][0]["box"][0] for one in shown)
    assert left == 10 and carried == pytest.approx(10 * scale, abs=0.01)
    sent = [body["messages"][0]["content"][0]["image_url"]["url"].partition(",")[2] for body in fake.requests]
    sizes = [Image.open(io.BytesIO(base64.b64decode(one))).size for one in sent]
    assert sizes[0] == (300, 200) and list(sizes[1]) == shown[1]["frame"] and fake.requests[0]["stream"] is True


def test_a_server_that_refuses_or_is_gone_is_named_in_the_page():
    with Fake() as fake:
        fake.faults = [503]
        model = Served(Server(fake.url, "m"), None)
        assert "503" in lines(client(model).post("/ask", json=question()))[-1]["error"]
        url = fake.url
    gone = Served(Server(url, "m"), None)
    assert "gives no answer" in lines(client(gone).post("/ask", json=question()))[-1]["error"]


def test_a_silent_server_is_left_when_nobody_waits():
    def told(text):
        raise Stopped

    begun = time.monotonic()
    with Fake(lambda body: ANSWER, slow=4.0) as fake, pytest.raises(Stopped):
        Served(Server(fake.url, "m"), None).ask(question_of(question()), told)
    assert time.monotonic() - begun < 3


def test_words_name_folders_releases_and_servers(trained, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store, said = open_store(str(tmp_path / "store")), []
    version = release(store.url, trained[0])
    for _ in range(2):  # the second time from the cache
        (model,) = naming.open_models(["toy@latest"], None, lambda: store, said.append)
        assert model.name == f"toy@{version}"
    assert (tmp_path / "cache/vlmr1/releases/toy" / version / "config.json").is_file()
    assert sum("pulling" in line for line in said) == 1 and said.count(f"loading toy@{version} …") == 2
    with Fake(models=dict.fromkeys(("a", "a@0123", "b"), "vllm")) as fake:
        models = naming.open_models([str(trained[0]), fake.url], None, lambda: None, print)
    assert [model.name for model in models] == [str(trained[0]), f"a at {fake.url}", f"b at {fake.url}"]
    about = client(*models).get("/facts").json()["models"]
    assert [one["name"] for one in about] == [trained[0].name, "a", "b"] and about[0]["title"] == str(trained[0])
    with pytest.raises(ValueError, match=r"nowhere: no such folder; give a checkpoint folder, NAME@VERSION or http"):
        naming.open_models(["nowhere"], None, lambda: None, print)
    with pytest.raises(ValueError, match="--like: is for the address of a server"):
        naming.open_models([str(trained[0])], trained[0], lambda: None, print)


def test_names_are_as_short_as_they_differ():
    class Named(Parrot):
        def __init__(self, name, *names):
            super().__init__()
            self.name, self.names = name, names

    models = [Named(f"/r/{path}", path[-4:], path) for path in ("old/grpo", "new/grpo", "new/base")]
    same = [Named("m at u/v1", "m"), Named("m at v/v1", "m")]
    assert [name for name, _ in told_apart(models)] == ["old/grpo", "new/grpo", "base"]
    assert [name for name, _ in told_apart(same)] == ["m at u/v1", "m at v/v1"]


def test_a_port_that_is_taken_is_said_before_any_model_is_loaded(tmp_path):
    held = command.listen("127.0.0.1", 0)  # as of a page that loads its models still
    port = held.getsockname()[1]
    with pytest.raises(SystemExit, match=rf"--host 127.0.0.1 --port {port}: is taken, perhaps by another page; give"):
        main(["playground", str(tmp_path), "--port", str(port)])
    held.close()
