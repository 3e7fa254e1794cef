"""Prompts as each family encodes them, against transformers' own processors, and the random checkpoints themselves."""

import pytest
import torch
from transformers import (
    Gemma3Processor,
    Glm4vProcessor,
    Idefics3Processor,
    InternVLProcessor,
    Qwen2_5_VLProcessor,
    Qwen2VLProcessor,
    Qwen3VLProcessor,
)

from tests.engine import KINDS, MAX_PIXELS, build, inputs_of, picture
from vlmr1.families import load_family
from vlmr1.families.random import write_random

PROCESSORS = {
    "qwen2_vl": Qwen2VLProcessor,
    "qwen2_5_vl": Qwen2_5_VLProcessor,
    "qwen3_vl": Qwen3VLProcessor,
    "internvl": InternVLProcessor,
    "gemma3": Gemma3Processor,
    "glm4v": Glm4vProcessor,
    "idefics3": Idefics3Processor,
    "smolvlm": Idefics3Processor,  # the same places; SmolVLM's own wants a package that writes numbers as words
}
# What the processors call the tokens of a tile; the others' pictures have no tiles, and positions on three axes.
TILES = {
    "gemma3": "image_seq_length",
    "internvl": "image_seq_length",
    "idefics3": "image_seq_len",
    "smolvlm": "image_seq_len",
}


@pytest.fixture(scope="module", params=PROCESSORS)
def family(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write_random(request.param, folder)
    found = load_family(folder, MAX_PIXELS[request.param])
    found.kind = request.param
    return found


@pytest.fixture
def processor(family, monkeypatch):
    """transformers' processor around the family's parts; its class check stumbles without torchvision."""
    kind = PROCESSORS[family.kind]
    monkeypatch.setattr(kind, "check_argument_for_proper_class", lambda *_: None)
    more = {TILES[family.kind]: family.tokens_a_tile} if family.kind in TILES else {}
    template = family.tokenizer.chat_template
    return kind(image_processor=family.images, tokenizer=family.tokenizer, chat_template=template, **more)


@pytest.mark.parametrize("names", ["", "a", "b", "c", "ba", "abc", "aa"])
def test_tokens_and_pixels_are_the_processors_own(family, processor, names):
    images = [picture(name) for name in names]
    prompt = family.encode("what is é ?\n", images, list(names))
    content = [{"type": "image"}] * len(images) + [{"type": "text", "text": "what is é ?\n"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    theirs = processor(images=images or None, text=text, return_tensors="pt")
    assert prompt.ids == theirs["input_ids"][0].tolist()
    ours = inputs_of(prompt, family, prompt.ids)
    for name in {"pixel_values", "image_grid_thw"} & set(theirs):
        assert torch.equal(ours[name].flatten(), theirs[name].flatten())  # a tile may be counted as a picture
    assert [p.tokens for p in prompt.pictures] == [family.tokens_of(image.size) for image in images]
    assert prompt.ids.count(family.image_id) == sum(p.tokens for p in prompt.pictures)
    assert family.prompt_length("what is é ?\n", [image.size for image in images]) == len(prompt.ids)
    assert prompt.positions.shape == (1 if family.kind in TILES else 3, len(prompt.ids))


@pytest.mark.parametrize("text", ["see <image>, then <image> there", "<image><image>two", "what<image>?<image>"])
def test_pictures_stand_where_the_text_says(family, processor, text):
    images, content = [picture("a"), picture("b")], []
    for i, part in enumerate(text.split("<image>")):
        content += [{"type": "image"}] * (i > 0) + ([{"type": "text", "text": part}] if part else [])
    chat = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    theirs = processor(images=images, text=chat, return_tensors="pt")["input_ids"][0].tolist()
    prompt = family.encode(text, images, ["a", "b"])
    assert prompt.ids == theirs and family.prompt_length(text, [image.size for image in images]) == len(theirs)
    assert [p.key for p in prompt.pictures] == ["a", "b"]
    with pytest.raises(ValueError, match="says <image> 2 times and has 1 pictures"):
        family.encode(text, images[:1], ["a"])


@pytest.mark.parametrize("names", ["", "a", "ab"])
@pytest.mark.parametrize("times", [1, 2])
def test_a_text_that_says_the_placeholder_is_refused(family, names, times):
    """Its token would be taken for a part of a picture. Where it is `<image>`, it says where a picture stands."""
    if family.marker == "<image>" and times == len(names):
        return
    with pytest.raises(ValueError, match=r"stands for a picture|says <image>"):
        family.encode(f"look: {family.marker * times} there", [picture(n) for n in names], list(names))


def test_positions_are_the_models_own(tmp_path):
    """Those that the model finds by itself when none are given, after one and after several pictures."""
    engine = build("qwen2_5_vl", tmp_path)
    for names in ("a", "cb"):
        prompt = engine.family.encode("what?", [picture(n) for n in names], list(names))
        inputs = inputs_of(prompt, engine.family, prompt.ids)
        found, _ = engine.stock().model.get_rope_index(
            inputs["input_ids"], inputs["mm_token_type_ids"], inputs["image_grid_thw"]
        )
        assert torch.equal(prompt.positions, found[:, 0])


def test_tiles_and_thumbnail(tmp_path):
    """A wide picture becomes tiles and, if several, a thumbnail; fewer pixels, fewer tiles."""
    write_random("internvl", tmp_path)
    wide = picture("a").resize((112, 28))
    tiles = {
        n: len(load_family(tmp_path, n * 28 * 28).picture(wide, "k").inputs["pixel_values"]) for n in (1, 2, 4, 12)
    }
    assert tiles == {1: 1, 2: 3, 4: 5, 12: 5}
    family = load_family(tmp_path, 1)  # less than one tile's pixels is one tile
    assert family.picture(wide, "k").tokens == 4 and family.picture(wide, "k").size == (1000, 1000)
    for size in ((1, 1), (3, 1), (1, 3)):  # the smallest, whose sides could be taken for colours
        seen = load_family(tmp_path, 28 * 28).picture(picture("a").resize(size), "k").inputs["pixel_values"]
        assert seen.shape == (1, 3, 28, 28)


@pytest.mark.parametrize("kind", KINDS)
def test_random_checkpoints_are_small_and_repeat(kind, tmp_path):
    engine = build(kind, tmp_path / "one")
    build(kind, tmp_path / "two")
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()
    assert sum(p.numel() for p in engine.weights.parameters()) < 300_000
    text = engine.weights.config.get_text_config()
    assert (text.num_hidden_layers, text.num_attention_heads, text.num_key_value_heads) == (3, 4, 2)
    assert text.vocab_size == 300 > len(engine.family.tokenizer)
    tied = engine.weights.get_output_embeddings().weight is engine.weights.get_input_embeddings().weight
    assert tied == KINDS[kind][1].get("tie_word_embeddings", False)
    family = engine.family
    assert family.decode(family.encode_completion("a [1, 2] é")) == "a [1, 2] é"
    assert family.tokenizer.convert_ids_to_tokens(family.end_ids) == ["<|im_end|>", "<|endoftext|>"]
    assert not set(family.end_ids) & set(family.never_sampled)
    assert {family.image_id} < set(family.never_sampled)


def test_another_model_type_is_refused(tmp_path):
    with pytest.raises(ValueError, match="gpt2"):
        write_random("gpt2", tmp_path)
