"""Every option of a GRPO run is honoured: losses, masks, rewards, samples kept out, prompts left out, frozen parts."""

import json
import shutil

import pytest
import torch

from tests.conftest import ALL, COMPUTE
from tests.test_training import GRPO, grpo
from vlmr1.files import sha256
from vlmr1.grpo.scoring import Scorer
from vlmr1.grpo.trainer import GrpoTrainer
from vlmr1.settings import Holdout, Lora, SyncReference, Trained, Training
from vlmr1.train import defaults, lists, load_jsonl
from vlmr1.work import fingerprint_of, inputs_of, open_work  # noqa: F401

SHORT = {"steps": 4, "save_steps": 4}


def changed(**values):
    return GRPO.model_copy(update=SHORT | values)


def weights(trainer):
    return {name: p.detach().clone() for name, p in trainer.bare.named_parameters()}


@pytest.mark.parametrize("loss_type", ["grpo", "bnpo", "dr_grpo", "dapo", "gspo", "cispo"])
def test_each_loss_trains_and_differs_from_grpos(trained, tmp_path, loss_type):
    clip = {"epsilon": None, "epsilon_high": 5.0} if loss_type == "cispo" else {}
    settings = changed(loss_type=loss_type, beta=0.0, **clip)
    rows = grpo(trained, tmp_path / "a", settings=settings).run()
    assert all(torch.isfinite(torch.tensor(row["loss"])) and row["grad_norm"] > 0 for row in rows)
    if loss_type != "grpo":
        plain = grpo(trained, tmp_path / "b", settings=changed(beta=0.0)).run()
        assert [row["reward"] for row in rows[:2]] == [row["reward"] for row in plain[:2]]  # the same first rollouts
        assert [row["grad_norm"] for row in rows] != [row["grad_norm"] for row in plain]


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_advantages_are_scaled_as_asked(trained, tmp_path, scale):
    trainer = grpo(trained, tmp_path, settings=changed(scale_rewards=scale))
    trainer.run()
    rows = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()][:12]
    rewards = torch.tensor([row["reward"] for row in rows]).view(4, 3)
    centred = rewards - rewards.mean(1, keepdim=True)
    scales = {"group": rewards.std(1, keepdim=True) + 1e-4, "batch": rewards.std() + 1e-4, "none": torch.ones(())}
    expected = torch.where(centred.abs().sum(1, keepdim=True) < 1e-6, 0.0, centred / scales[scale])
    assert torch.allclose(torch.tensor([row["advantage"] for row in rows]).view(4, 3), expected, atol=1e-4)


def test_groups_without_a_gradient_are_skipped_and_nothing_changes(trained, tmp_path, monkeypatch):
    settings = changed(beta=0.0, num_generations=2, learning_rate=5e-4, rewards={"format": 1.0})
    skipping = grpo(trained, tmp_path / "a", settings=settings)
    rows = skipping.run()
    assert any(0 < row["zero_variance_share"] < 1 for row in rows)
    monkeypatch.setattr(GrpoTrainer, "_drop_idle", lambda *args: None)
    plain = grpo(trained, tmp_path / "b", settings=settings)
    for row, other in zip(rows, plain.run(), strict=True):
        assert row["loss"] == pytest.approx(other["loss"], abs=1e-6)
        assert row["grad_norm"] == pytest.approx(other["grad_norm"], rel=1e-4)


def test_a_step_of_idle_groups_alone_costs_no_forward_pass(trained, tmp_path, monkeypatch):
    trainer = grpo(trained, tmp_path, settings=changed(beta=0.0, rewards={"tests.test_options:constant": 1.0}))
    monkeypatch.setattr(trainer.policy, "score_after", lambda *args: pytest.fail("an idle group was scored"))
    monkeypatch.setattr(trainer.policy, "score", lambda *args: pytest.fail("an idle group was scored"))
    before = weights(trainer)
    rows = trainer.run()
    assert all(row["zero_variance_share"] == 1 and row["grad_norm"] == 0 for row in rows)
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer).items())


def constant(completion, sample, answer, pictures):
    return 1.0


def looks(completion, sample, answer, pictures):
    from PIL import Image

    with Image.open(pictures[0]) as picture:
        return picture.size[1] / 112 + 0.01 * len(completion)


def nonsense(completion, sample, answer, pictures):
    return float("nan")


def test_a_reward_of_the_users_sees_the_picture(trained, tmp_path):
    settings = changed(rewards={"iou": 1.0, "tests.test_options:looks": 2.0})
    rows = grpo(trained, tmp_path, settings=settings).run()
    assert {"rewards/iou", "rewards/tests.test_options:looks", "rewards/tests.test_options:looks_std"} <= set(rows[0])
    row = json.loads((tmp_path / "rollouts.jsonl").read_text().splitlines()[0])
    own = row["rewards"]["tests.test_options:looks"]["value"]
    assert row["reward"] == pytest.approx(row["rewards"]["iou"]["value"] + 2 * own, abs=1e-5)
    assert own >= 0.75


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("odLength", "'odLength' is no reward of task rec; it has accuracy, format, length, repetition, iou"),
        ("tests.test_options:missing", "cannot be imported"),
        ("no_such_module:function", "cannot be imported"),
    ],
)
def test_a_reward_that_is_not_there_is_refused_before_a_model_is_loaded(trained, tmp_path, monkeypatch, name, said):
    monkeypatch.setattr("vlmr1.training.load_family", lambda *args: pytest.fail("loaded"))
    with pytest.raises(ValueError, match=said):
        grpo(trained, tmp_path, settings=changed(rewards={name: 1.0}))


def test_a_users_reward_that_gives_no_number_stops_with_the_row(trained, tmp_path):
    with pytest.raises(ValueError, match=r"gave nan for s id \d+"):
        grpo(trained, tmp_path, settings=changed(rewards={"tests.test_options:nonsense": 1.0})).run()


def test_truncated_completions_are_masked_on_request(trained, tmp_path):
    settings = changed(max_completion_length=2, mask_truncated_completions=True, beta=0.0)
    trainer = grpo(trained, tmp_path, settings=settings)
    before = weights(trainer)
    rows = trainer.run()
    assert all(row["truncated_share"] == 1 and row["loss"] == 0 for row in rows)
    assert all(torch.equal(value, before[name]) for name, value in weights(trainer).items())


def test_samples_kept_out_are_asked_and_never_trained_on(trained, tmp_path):
    settings = changed(holdout=Holdout(items=6, every=2, patience=None))
    trainer = grpo(trained, tmp_path, settings=settings)
    rows = trainer.run()
    assert [row["step"] for row in rows if "holdout/judged" in row] == [2, 4]
    seen = {json.loads(line)["id"] for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()}
    kept = {trainer.prompts.sample(index).id for index in trainer.order.kept_out}
    assert len(kept) == 6 and not seen & kept


def test_training_stops_when_the_kept_out_samples_get_no_better_and_keeps_the_best(trained, tmp_path, monkeypatch):
    settings = changed(
        steps=8, save_steps=8, holdout=Holdout(items=4, every=1, patience=2), num_iterations=1, epsilon=None
    )
    trainer = grpo(trained, tmp_path / "w", settings=settings)
    said = iter([0.2, 0.5, 0.4, 0.5])
    found = {}

    def look():
        value = next(said)
        found[value] = weights(trainer) if value not in found else found[value]
        return value, 0.0

    monkeypatch.setattr(trainer.looks, "look", look)
    rows = trainer.run()
    assert len(rows) == 4
    trainer.save_policy(tmp_path / "policy")
    saved = trainer.family.load_model(tmp_path / "policy", torch.float32).state_dict()
    for name, value in found[0.5].items():
        assert torch.equal(saved[name], value), name


def test_prompts_that_are_too_long_are_left_out_and_counted(trained, tmp_path):
    _, source = trained
    trainer = grpo(trained, tmp_path / "a", settings=changed())
    lengths = [len(trainer.prompts.encode(index).ids) for index in range(len(trainer.prompts))]
    task = __import__("vlmr1.tasks.rec", fromlist=["rec"])
    for index, length in enumerate(lengths):
        sample = trainer.prompts.sample(index)
        assert trainer.family.prompt_length(task.prompt(sample), sample.sizes) == length
    limit = sorted(lengths)[len(lengths) // 2]
    shorter = grpo(trained, tmp_path / "b", settings=changed(max_prompt_length=limit))
    assert shorter.prompts.dropped == sum(length > limit for length in lengths) > 0
    assert len(shorter.prompts) == len(source.samples) - shorter.prompts.dropped


def test_a_reference_follows_the_policy_on_request(trained, tmp_path):
    sync = SyncReference(ref_model_mixup_alpha=1.0, ref_model_sync_steps=4)
    trainer = grpo(trained, tmp_path, settings=changed(sync_ref_model=sync))
    trainer.run()
    for mine, theirs in zip(trainer.reference.policy.bare.parameters(), trainer.bare.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_followed_reference_is_the_same_after_a_kill(trained, tmp_path):
    sync = SyncReference(ref_model_mixup_alpha=0.5, ref_model_sync_steps=2)
    settings = GRPO.model_copy(update={"sync_ref_model": sync})
    rows = grpo(trained, tmp_path / "whole", settings=settings).run()
    with pytest.raises(Exception, match=r"^$"):
        grpo(trained, tmp_path / "cut", die_at=6, settings=settings).run()
    assert grpo(trained, tmp_path / "cut", settings=settings).run() == rows


LORA = Lora(r=4, alpha=8, dropout=0.0, target_modules="all-linear", vision=False)


def test_lora_trains_adapters_alone_and_its_policy_is_a_whole_checkpoint(trained, tmp_path):
    what = Trained(freeze_vision=False, freeze_projector=False, lora=LORA)
    trainer = grpo(trained, tmp_path / "w", settings=changed(beta=0.1, learning_rate=1e-2), what=what)
    rows = trainer.run()
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-6) and rows[-1]["kl"] > 1e-6  # the base beneath is the reference
    assert all("lora_" in name for name, p in trainer.model.named_parameters() if p.requires_grad)
    trainer.save_policy(tmp_path / "policy")
    merged = trainer.family.load_model(tmp_path / "policy", torch.float32)
    base = trainer.family.load_model(trained[0], torch.float32).state_dict()
    moved = [name for name, value in merged.state_dict().items() if not torch.equal(value, base[name])]
    assert moved and all("language_model.layers" in name for name in moved)
    assert (tmp_path / "policy/adapter/adapter_model.safetensors").is_file()


@pytest.mark.parametrize("projector", [True, False])
def test_a_frozen_tower_reads_each_picture_once_a_step(trained, tmp_path, projector):
    what = Trained(freeze_vision=True, freeze_projector=projector, lora=None)
    trainer = grpo(trained, tmp_path, settings=changed(beta=0.1), what=what)
    calls = []
    trainer.bare.model.visual.blocks[0].register_forward_hook(lambda *args: calls.append(1))
    before = weights(trainer)
    rows = trainer.run()
    assert len(calls) == 2  # two rollouts of two iterations each: rollout, reference and policy share what it saw
    for name, value in weights(trainer).items():
        frozen = {"tower": True, "projector": projector, "language": False}[trainer.family.part(name)]
        assert torch.equal(value, before[name]) == frozen, name
    plain = grpo(trained, tmp_path / "all", settings=changed(beta=0.1))
    assert plain.run()[0]["reward"] == rows[0]["reward"]


@pytest.mark.parametrize("projector", [True, False])
@pytest.mark.parametrize("lora", [None, LORA])
def test_in_half_precision_the_reference_begins_as_the_policy(trained, tmp_path, lora, projector):
    """Ready features meet the projector at the precision of the model's own forward pass."""
    what = Trained(freeze_vision=lora is None, freeze_projector=projector and lora is None, lora=lora)
    half = COMPUTE.model_copy(update={"dtype": "bfloat16"})
    trainer = grpo(trained, tmp_path / "w", settings=changed(beta=0.1), what=what, compute=half)
    assert trainer.run()[0]["kl"] == 0


@pytest.mark.parametrize("workers", [0, 1])
def test_an_unreadable_picture_stops_before_its_step_and_training_goes_on_when_mended(trained, tmp_path, workers):
    checkpoint, source = trained
    compute = COMPUTE.model_copy(update={"workers": workers})
    whole = grpo(trained, tmp_path / "whole")
    rows = whole.run()
    order = list(whole.order)
    late = order[6 * 4]  # of the fourth rollout, steps 7 and 8
    images = tmp_path / "images"
    shutil.copytree(source.images, images)
    path = images / source.samples[late].images[0]
    good = path.read_bytes()
    path.write_bytes(good[:100])
    moved = (checkpoint, source.__class__(source.name, source.role, images, source.samples))

    def about():
        return {"data": {"pictures": {str(images): {p.name: sha256(p) for p in sorted(images.iterdir())}}}}

    with pytest.raises(ValueError, match=rf"s id {late}: picture {path} cannot be read .* mend it"):
        grpo(moved, tmp_path / "w", about=about(), compute=compute).run()
    assert json.loads((tmp_path / "w/checkpoint-4/whole.json").read_text()) == {"step": 4}
    path.write_bytes(good)
    resumed = grpo(moved, tmp_path / "w", about=about(), compute=compute)
    assert (tmp_path / "w/checkpoint-4").is_dir()
    assert resumed.run() == rows


def test_gradients_that_are_no_numbers_stop_the_run_and_leave_the_batch(trained, tmp_path):
    trainer = grpo(trained, tmp_path)
    parameter = next(p for p in trainer.bare.parameters() if p.requires_grad)
    before = parameter.detach().clone()
    parameter.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(FloatingPointError, match=r"the gradients' norm is (nan|inf) at step 1; the batch is in"):
        trainer.run()
    assert torch.equal(parameter, before)
    left = json.loads((tmp_path / "offending-0.json").read_text())
    assert left["step"] == 1 and len(left["batch"]) == 4 and len(left["batch"][0]["completions"]) == 3


def test_the_command_line_takes_lists_and_refuses_what_cannot_work(trained, tmp_path):
    _, source = trained
    assert lists("a.jsonl:b.jsonl", "x:y", "iou:iou")[1][2] == "iou"
    with pytest.raises(ValueError, match="2, 1 and 2 entries"):
        lists("a.jsonl:b.jsonl", "x", None)
    row = {"id": 3, "image": source.samples[0].images[0], "conversations": [{"from": "human", "value": "<image>q"}]}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=r"a\.jsonl:1: conversations: a question and its answer are needed"):
        load_jsonl(path, source.images)
    answered = row | {"conversations": [*row["conversations"], {"from": "gpt", "value": [1, 2, 30, 40]}]}
    path.write_text(json.dumps(answered) + "\n")
    (sample,) = load_jsonl(path, source.images).samples
    assert (
        sample.solution == "[1, 2, 30, 40]" and sample.reward == "iou" and sample.sizes[0] == source.samples[0].sizes[0]
    )
    tagged = {"task": "math", "conversations": [{"value": "2 + 3?"}, {"value": "<answer> 5 </answer>"}]}
    path.write_text(json.dumps(tagged) + "\n")
    (sample,) = load_jsonl(path, source.images).samples
    scored = Scorer({"accuracy": 1.0}, [sample]).judge("<think>x</think><answer>5</answer>", sample, (0, 0), [])
    assert sample.solution == "5" and scored.total == 1.0
    for change, said in (
        ({"accu_reward_method": "odd"}, "accu_reward_method: 'odd' is not known for task rec"),
        ({"task": "odd"}, "task: 'odd' is not known"),
        ({"image": "../a.png"}, "leaves its folder"),
        ({"image": "none.png"}, "image none.png: not there"),
        ({"size": [640, 480]}, "size: "),
        ({"conversations": [{"value": "<image><image>q"}, {"value": "x"}]}, "2 places <image> for 1 pictures"),
        ({"conversations": [{"value": "<image> "}, {"value": "x"}]}, "the question is empty"),
    ):
        path.write_text(json.dumps(answered | change) + "\n")
        with pytest.raises(ValueError, match=rf"a\.jsonl:1: .*{said}"):
            load_jsonl(path, source.images)


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("loss_type=ppo", "grpo.loss_type"),
        ("num_generations=1", "grpo.num_generations"),
        ("epsilon=0.2", "with num_iterations 1 the ratio is exactly 1"),
        ("compute.prompts_per_device=3", "16 prompts do not divide"),
        ("compute.deepspeed={stage: 2, offload: all}", "needs stage 3"),
        ("use_bias_correction_kl=true\tbeta=0.0", "there is no reference"),
        ("loss_type=cispo\tepsilon_high=0.2\tnum_iterations=2", "at least 1, e.g. 5.0"),
        ("num_iterations=2\tepsilon=0.2\tdelta=1.1", "above 1 \\+ epsilon_high"),
        ("steps", "write KEY=VALUE"),
        ("sync_ref_model={ref_model_mixup_alpha: 0.5, ref_model_sync_steps: 4}\tbeta=0.0", "there is no reference"),
        ("compte.dtype=float32", "unknown key"),
        ("rollout.engine=vlm", "engine: 'vlm' is not known; one of in_process, vllm"),
        ("rollout.servers=[http://h/v1]", "engine: is missing"),
        ("rollout.engine=vllm\trollout.servers=http://h/v1", r"rollout\.servers: a list is needed, e\.g\."),
        ("rollout.engine=vllm\trollout.servers=[http://h:8000]", r"did you mean http://h:8000/v1\?"),
        ("rollout={engine: vllm, path: null}", "path: is missing, the folder through which checkpoint goes"),
        ("rollout={engine: vllm, weights: nccl, path: w}", "path: nccl goes through no folder"),
        ("rewards={a b: 1.0}", "neither a task's reward nor package.module:function"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_key(pair, said):
    with pytest.raises(ValueError, match=said):
        defaults(pair.split("\t"))


def test_rollouts_over_vllm_need_no_more_than_their_engine():
    over = defaults(["rollout.engine=vllm", "rollout.timeout=9.0"]).grpo.over_vllm
    assert (over.servers, over.weights, over.path) == (("http://localhost:8000/v1",), "checkpoint", "work/weights")
    assert over.timeout == 9.0 and defaults().grpo.rollout is None
    assert defaults(["rollout={engine: vllm, weights: nccl}"]).grpo.over_vllm.path is None


def test_the_ten_lines_of_the_trainers_docstring_say_what_is(trained):
    import vlmr1.grpo.trainer as module

    example = [line.strip() for line in module.__doc__.splitlines() if line.startswith("    ")]
    compile("\n".join(example), "example", "exec")
    exec("\n".join(line for line in example if line.startswith(("from ", "import "))), {})
    chosen = defaults(["rewards={accuracy: 1.0, my_rewards:brevity: 0.2}"])
    assert chosen.grpo.rewards == {"accuracy": 1.0, "my_rewards:brevity": 0.2}
    assert isinstance(defaults(["steps=200", "prompts_per_step=4", "rewards={accuracy: 1.0, format: 1.0}"]), Training)
    assert ALL and COMPUTE
