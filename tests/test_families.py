"""Every family does everything, on a small random model of its real class: the table family x check.

The equality of shared and separate prompts is studied in depth, on some of these families, in test_exactness.
"""

import json

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText

from tests.conftest import ALL, COMPUTE, ROOT
from tests.engine import (
    BATCHES,
    KINDS,
    MAX_PIXELS,
    NEW,
    SIDES,
    backward,
    build,
    completions,
    difference,
    features,
    largest,
    stock_greedy,
    stock_logps,
)
from tests.test_training import GRPO
from vlmr1.adapters import add_lora, merge, save_adapter
from vlmr1.boxes import rescale
from vlmr1.doctor import _base
from vlmr1.evaluation.asking import Chunk
from vlmr1.evaluation.engines import InProcess
from vlmr1.families import FAMILIES, load_family
from vlmr1.families.base import THOUSANDTHS
from vlmr1.families.random import write_random
from vlmr1.grpo.policy import Policy, prepare
from vlmr1.grpo.rollout import sample_completions
from vlmr1.grpo.sampling import Sampling
from vlmr1.grpo.trainer import GrpoTrainer
from vlmr1.sample import Sample, Source
from vlmr1.settings import Lora, Pretrained, Training, load_params
from vlmr1.sft import SftTrainer
from vlmr1.tasks import rec
from vlmr1.work import open_work

BATCH = BATCHES["mixed"]  # one picture, none, two, one
ODD = [(1, 1), (3, 200), (199, 5), (57, 83), (113, 111), (28, 29), (301, 97), (64, 333), (141, 142), (500, 7)]
FRAMES = {"qwen2_5_vl": None}  # None: the pixels that the model sees; all others speak in thousandths
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5}
GRADIENT = 1e-5  # relative; norms and rotary angles go through fp32 whatever the weights' type


@pytest.fixture(scope="module", params=KINDS | NEW)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def folder(kind, tmp_path_factory):
    return tmp_path_factory.mktemp(kind)


@pytest.fixture(scope="module")
def engine(kind, folder):
    return build(kind, folder)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Four questions about pictures of several sizes."""
    images = tmp_path_factory.mktemp("pictures")
    samples = []
    for i, (width, height) in enumerate([*SIDES.values(), (57, 83)]):
        Image.effect_noise((width, height), 90).convert("RGB").save(images / f"{i}.png")
        box = json.dumps([1, 2, width - 3, height - 5])
        samples.append(Sample(i, (f"{i}.png",), rec.problem("it"), box, "rec", "iou", "s", "train", ((width, height),)))
    return Source("s", "train", images, tuple(samples))


def says(policy, engine):
    with torch.no_grad():
        return policy.score(engine.prompts(BATCH), completions(BATCH)).logps


def naive(model, family):
    prepare(model.eval(), family, share=False)
    return Policy(model, model, family, 0.9, False, torch.device("cpu"))


def test_every_supported_type_is_in_the_table():
    assert {model_type for model_type, _ in (KINDS | NEW).values()} == set(FAMILIES)


def test_load_save_load(kind, engine, folder, tmp_path):
    """What is saved has the same bytes, and gives the same answers by the real class, loaded by anyone."""
    engine.family.save(engine.weights, tmp_path)
    family = load_family(tmp_path, MAX_PIXELS[(KINDS | NEW)[kind][0]])
    model = family.load_model(tmp_path, torch.float32)
    assert type(family) is type(engine.family) and type(model) is family.model_class
    assert torch.equal(says(naive(model, family), engine), says(engine.policy(False, torch.float32), engine))
    assert type(AutoModelForImageTextToText.from_pretrained(tmp_path)) is family.model_class
    family.save(model, tmp_path / "again")
    for path in (tmp_path / "again").iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes()
    own, saved = load_file(folder / "model.safetensors"), load_file(tmp_path / "model.safetensors")
    assert own.keys() == saved.keys() and all(torch.equal(own[name], saved[name]) for name in own)


def test_parts(engine):
    """Tower, projector and language model: all there, and each parameter belongs to one."""
    parts = {engine.family.part(name) for name, _ in engine.weights.named_parameters()}
    assert parts == {"tower", "projector", "language"}
    head = engine.weights.get_output_embeddings().weight
    assert all(engine.family.part(n) == "language" for n, p in engine.weights.named_parameters() if p is head)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_a_shared_prefix_changes_nothing(engine, dtype, record_property):
    """One and several pictures and none: log-probs and every gradient, and by features made ahead."""
    prompts, groups = engine.prompts(BATCH), completions(BATCH)
    apart = engine.policy(False, dtype)
    expected = apart.score(prompts, groups)
    if dtype == torch.float64:  # the naive way is transformers' own forward
        stock = engine.stock()
        for b, group in enumerate(groups):
            for g, completion in enumerate(group):
                alone = stock_logps(stock, engine.family, prompts[b], completion, apart.temperature)
                assert difference(expected.logps[b, g][expected.mask[b, g]], alone) < TOLERANCE[dtype]
    if engine.family.breaks is not None:
        return
    shared = engine.policy(True, dtype)
    assert shared.shared
    right = backward(apart, expected)
    assert right.keys() == {name for name, _ in engine.weights.named_parameters()}
    if dtype == torch.float64:  # another order of rows, tiles or depths would be seen
        made = {key: one.flip(tuple(range(one.ndim - 1))) for key, one in features(shared, prompts).items()}
        assert difference(shared.score(prompts, groups, made).logps, expected.logps) > 1e-3
    ways = {
        "at once": shared.score(prompts, groups),
        "after reading": shared.score_after(shared.read(prompts), groups),
        "features": shared.score(prompts, groups, features(shared, prompts)),
    }
    for way, scored in ways.items():
        record_property(f"log-probs, {way}", difference(scored.logps, expected.logps))
        assert difference(scored.logps, expected.logps) < TOLERANCE[dtype]
        if way != "features":  # of a frozen tower
            found = backward(shared, scored)
            record_property(f"gradients, {way}", largest(found, right))
            assert largest(found, right) < GRADIENT


def test_a_rollout_is_generates(engine):
    """Greedy completions of prompts with one picture, none and several, decoded together, are `generate`'s own."""
    policy = engine.policy(engine.family.breaks is None)
    prompts, stock = engine.prompts(BATCH), engine.stock()
    groups = sample_completions(policy, prompts, 1, Sampling(0.0, 6), range(len(prompts)))
    assert [c for (c,) in groups] == [stock_greedy(stock, engine.family, prompt, 6) for prompt in prompts]
    drawn = sample_completions(policy, prompts, 3, Sampling(5.0, 6), range(len(prompts)))
    said = {token for group in drawn for completion in group for token in completion}
    assert len(said) > 20 and not said & set(engine.family.never_sampled)


def length(completion, sample, answer, pictures):
    """A reward that differs within any group."""
    return float(sum(map(ord, completion)) % 97)


def test_a_step_of_grpo(kind, engine, folder, source, tmp_path):
    settings = GRPO.model_copy(
        update={
            "steps": 1,
            "prompts_per_step": 4,
            "num_iterations": 1,
            "epsilon": None,
            "save_steps": 1,
            "max_completion_length": 6,
            "warmup_steps": 0,
            "share_prefix": engine.family.breaks is None,
            "rewards": {"tests.test_families:length": 1.0},
        }
    )
    most = MAX_PIXELS[(KINDS | NEW)[kind][0]]
    chosen = Training(compute=COMPUTE, trained=ALL, grpo=settings, max_pixels=most)
    trainer = GrpoTrainer(folder, [source], chosen, open_work(tmp_path, lambda: {}))
    before = {name: p.detach().clone() for name, p in trainer.bare.named_parameters()}
    (row,) = trainer.run()
    assert row["grad_norm"] > 0 and row["kl"] == 0
    moved = {name for name, p in trainer.bare.named_parameters() if not torch.equal(p, before[name])}
    assert moved == before.keys()


def test_an_adapter_and_its_merging(engine, folder, tmp_path):
    """Adapters on language model and tower change what is said, and merging keeps it."""
    share = engine.family.breaks is None
    model = engine.stock(torch.float32)
    prepare(model, engine.family, share)
    wrapped = add_lora(
        model, engine.family, Lora(r=2, alpha=8.0, dropout=0.0, target_modules="all-linear", vision=True)
    )
    generator = torch.Generator().manual_seed(0)
    for name, parameter in wrapped.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.05, generator=generator)
    adapted = {engine.family.part(n) for n, m in model.named_modules() if hasattr(m, "lora_A")}
    assert adapted == {"tower", "language"}
    before = says(Policy(wrapped.eval(), model, engine.family, 0.9, share, torch.device("cpu")), engine)
    save_adapter(wrapped, engine.family, tmp_path / "adapter", str(folder))
    merge(tmp_path / "adapter", None, tmp_path / "merged")
    merged = engine.family.load_model(tmp_path / "merged", torch.float32)
    load_family(tmp_path / "merged", None)
    after = says(naive(merged, engine.family), engine)
    assert difference(after, before) < 3e-5
    assert difference(after, says(engine.policy(False, torch.float32), engine)) > 1e-2


@pytest.mark.parametrize("size", ODD, ids=str)
def test_a_picture_sent_to_a_server_is_seen_as_in_training(engine, size):
    """What the server's processor does to it once more changes no pixel."""
    image = Image.effect_noise(size, 90).convert("L")
    here = engine.family.picture(image, "a").inputs
    there = engine.family.picture(engine.family.seen(image), "a").inputs
    assert here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)


@pytest.mark.parametrize("size", ODD, ids=str)
def test_coordinates_there_and_back(kind, engine, size):
    """A box said in the model's frame comes back to the picture's own pixels, to half a unit of the frame."""
    picture = Image.new("RGB", size, (9, 99, 199))
    prompt = engine.family.encode("where?", [picture], ["k"])
    seen = prompt.pictures[0]
    assert seen.tokens == engine.family.tokens_of(size) == prompt.ids.count(engine.family.image_id)
    assert len(prompt.ids) == engine.family.prompt_length("where?", [size])
    if FRAMES.get(kind, THOUSANDTHS) is not None:
        assert prompt.size == THOUSANDTHS
    else:
        assert prompt.size[0] * prompt.size[1] == seen.tokens * 28 * 28
    box = (size[0] * 0.1, size[1] * 0.2, size[0] * 0.7, float(size[1]))
    there = rescale(box, size, prompt.size)
    assert there[3] == pytest.approx(prompt.size[1])
    assert rescale(there, prompt.size, size) == pytest.approx(box)
    sample = Sample(0, ("p.png",), "it", json.dumps(box), "rec", "iou", "s", "train", (size,))
    said = engine.family.decode(engine.family.encode_completion(rec.target(sample, prompt.size)))
    answer = rec.answer(said, sample, prompt.size)
    for found, true, side, frame in zip(answer.boxes[0], box, size * 2, prompt.size * 2, strict=True):
        assert abs(found - true) <= 0.5001 * side / frame


def test_an_evaluation(kind, engine, folder, source):
    asked = InProcess(folder, COMPUTE, MAX_PIXELS[(KINDS | NEW)[kind][0]], seed=0, length=8)
    assert asked.about()["shared_prefix"] == (engine.family.breaks is None)
    rows = asked.ask(Chunk(0, source, "sampled", 1.0, 2, source.samples))
    assert [(row["index"], row["sample"]) for row in rows] == [(i, s) for i in range(4) for s in range(2)]
    assert all({"box", "iou", "hit", "completion"} <= row.keys() and 1 <= row["tokens"] <= 8 for row in rows)


def test_several_pictures_and_none(engine):
    family = engine.family
    both = family.encode("first <image>, then <image>?", [Image.new("RGB", SIDES[n]) for n in "ab"], ["a", "b"])
    assert [p.key for p in both.pictures] == ["a", "b"] and both.size == both.pictures[0].size
    none = family.encode("no picture", [], [])
    assert none.pictures == () and none.size == (0, 0) and family.image_id not in none.ids


@pytest.fixture
def refused(tmp_path):
    """What is said of a checkpoint with this config."""

    def said(**config):
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(ValueError) as caught:
            load_family(tmp_path, None)
        return str(caught.value)

    return said


def test_an_unknown_type_is_told_the_known_ones_and_how_to_add_one(refused, tmp_path):
    said = f"supported: {', '.join(FAMILIES)}; docs/add-a-family.md adds one"
    assert refused(model_type="mllama") == f"{tmp_path}/config.json: model_type 'mllama' is not supported; {said}"


@pytest.mark.parametrize(("text", "said"), [("{", "not JSON"), ("[]", "holds no mapping")])
def test_a_config_that_is_none_is_named(tmp_path, text, said):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=rf"{tmp_path}/config.json: {said}.*; fetch the checkpoint again"):
        load_family(tmp_path, None)


def test_a_tokenizer_without_padding_pads_with_its_end(tmp_path):
    write_random("internvl", tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "pad_token"}))
    family = load_family(tmp_path, 28 * 28)
    assert family.tokenizer.pad_token_id is None and family.pad_id == family.tokenizer.eos_token_id
    policy = naive(family.load_model(tmp_path, torch.float32), family)
    prompts = [family.encode(text, [], []) for text in ("what?", "what is it?")]
    groups = sample_completions(policy, prompts, 2, Sampling(1.0, 4), range(2))
    with torch.no_grad():
        assert policy.score(prompts, groups).logps.isfinite().all()


def test_code_of_a_checkpoints_own_is_never_run(refused, tmp_path):
    (tmp_path / "modeling.py").write_text("raise SystemExit('run')")
    said = refused(
        model_type="internvl_chat", auto_map={"AutoConfig": "modeling.Config", "AutoModel": "modeling.Model"}
    )
    assert "code of its own, which is never run" in said and "-hf" in said and "internvl" in said


def test_a_base_model_without_a_template_is_refused(tmp_path):
    write_random("qwen3_vl", tmp_path)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template; take the checkpoint that was tuned"):
        load_family(tmp_path, None)
    (tmp_path / "chat_template.json").write_text('{"chat_template": "{{ messages[0].content[0].text }}<think>\\n"}')
    assert load_family(tmp_path, None).opened == "<think>"


def test_a_thought_that_the_template_opened_belongs_to_the_completion(tmp_path):
    write_random("qwen3_vl", tmp_path)
    template = tmp_path / "chat_template.jinja"
    template.write_text(template.read_text().replace("assistant\n", "assistant\n<think>\n"))
    family = load_family(tmp_path, None)
    assert family.tokenizer.decode(family.encode("why?", [], []).ids).endswith("<think>\n")
    ids = family.encode_completion("<think>so</think><answer>1</answer>")
    assert family.decode(ids) == "<think>\nso</think><answer>1</answer>"


def test_glms_tags_are_words_and_its_marks_are_none(tmp_path):
    write_random("glm4v", tmp_path)
    family = load_family(tmp_path, None)
    text = "<think>so</think><answer><|begin_of_box|>[1, 2]<|end_of_box|></answer><|user|>"
    ids = family.tokenizer(text)["input_ids"]
    assert family.decode(ids) == "<think>so</think><answer>[1, 2]</answer>"
    ends = family.tokenizer.convert_ids_to_tokens(family.end_ids)
    assert ends == ["<|user|>", "<|observation|>", "<|endoftext|>", "</answer>"]  # the last from the generation config


def test_a_config_that_breaks_sharing_is_refused_by_doctor_and_training(source, tmp_path):
    write_random("qwen2_vl", tmp_path / "base")
    config = json.loads((tmp_path / "base/config.json").read_text())
    config["text_config"] |= {"layer_types": ["sliding_attention"] * 3, "use_sliding_window": True, "sliding_window": 6}
    (tmp_path / "base/config.json").write_text(json.dumps(config))
    base = Pretrained(model=str(tmp_path / "base"), revision="0" * 40)
    params = load_params(ROOT / "params.yaml")
    params = params.model_copy(update={"warmup": params.warmup.model_copy(update={"pretrained": base})})
    (finding,) = _base(params)
    assert (
        not finding.good and "qwen2_vl cannot share prompts exactly, because its layers are not all of" in finding.says
    )
    with pytest.raises(ValueError, match=r"share_prefix: qwen2_vl cannot share .*sliding_attention.*; set it to false"):
        GrpoTrainer(
            tmp_path / "base",
            [source],
            Training(compute=COMPUTE, trained=ALL, grpo=GRPO, max_pixels=3136),
            open_work(tmp_path / "grpo", lambda: {}),
        )


def test_gemma_refuses_what_it_cannot_do(source, tmp_path):
    write_random("gemma3", tmp_path / "base")
    with pytest.raises(ValueError, match="max_pixels: 500, but gemma3 makes a square of 784 pixels"):
        load_family(tmp_path / "base", 500)
    chosen = Training(compute=COMPUTE, trained=ALL, grpo=GRPO, max_pixels=3136)
    with pytest.raises(
        ValueError, match="share_prefix: gemma3 cannot share prompts exactly, because its visual tokens"
    ):
        GrpoTrainer(tmp_path / "base", [source], chosen, open_work(tmp_path / "grpo", lambda: {}))
    base = Pretrained(model=str(tmp_path / "base"), revision="0" * 40)
    params = load_params(ROOT / "params.yaml")
    params = params.model_copy(update={"warmup": params.warmup.model_copy(update={"pretrained": base})})
    (finding,) = _base(params)
    assert not finding.good and finding.says.startswith("share_prefix: gemma3 cannot share prompts exactly")
    work = open_work(tmp_path / "sft", lambda: {})
    settings = GRPO.model_copy(update={"save_steps": 1})
    trainer = SftTrainer(
        tmp_path / "base", [source], settings, ALL, COMPUTE, work, max_pixels=3136, seed=0, batch=2, steps=1
    )
    assert not trainer.policy.shared and trainer.run()[0]["grad_norm"] > 0
