"""The token tree's structure, without a model: every column's past is its sequence's own, and nothing stands twice."""

import random

import pytest
import torch

from vlmr1.families.base import Picture, Prompt
from vlmr1.grpo.tree import SHORTEST, Tree

IMAGE = 5
A, B = (Picture(key, {}, 6, (56, 84)) for key in "ab")  # two pictures of one size


def prompt(pictures, text):
    ids = [1]
    for picture in pictures:
        ids += [3, *[IMAGE] * picture.tokens, 4]
    ids += text
    return Prompt(ids, torch.arange(len(ids))[None], tuple(pictures))


def past(tree):
    """Of every column: the token ids that it sees, itself the last."""
    seen = {}
    ids = [token for node in tree.nodes for token in node.ids]
    for node in tree.nodes:
        above = [ids[column] for column in node.path()]
        for t in range(len(node.ids)):
            seen[node.start + t] = [*above, *node.ids[: t + 1]]
    return seen


def check(tree, prompts, completions):
    """Columns without gaps; each prompt and each question of a completion stands on exactly its own past."""
    starts = [node.start for node in tree.nodes]
    assert starts == [sum(len(n.ids) for n in tree.nodes[:i]) for i in range(len(starts))]
    assert all(node.ids for node in tree.nodes)
    ids, positions = tree.row()
    assert ids.shape == (1, tree.length) and positions.shape == (1, 1, tree.length)
    seen = past(tree)
    for b, one in enumerate(prompts):
        assert ids[0, tree.prompts[b]].tolist() == one.ids
        assert positions[:, 0, tree.prompts[b]].tolist() == one.positions.tolist()
        assert seen[tree.prompts[b][-1]] == one.ids
        assert max(tree.prompts[b]) < tree.split
    # The row's pictures, in the order of their places.
    row = ids[0].tolist()
    places = [column for column, token in enumerate(row) if token == IMAGE and row[column - 1] != IMAGE]
    for b, one in enumerate(prompts):
        keys = [p.key for place, p in zip(places, tree.pictures, strict=True) if place in tree.prompts[b]]
        assert keys == [p.key for p in one.pictures]
    assert len(tree.asked) == len(tree.tokens)
    for b, group in enumerate(completions):
        for g, completion in enumerate(group):
            assert tree.mask[b, g].sum() == len(completion)
            for t, token in enumerate(completion):
                question = int(tree.index[b, g, t])
                column = tree.asked[question]
                assert tree.tokens[question] == token
                assert seen[column] == prompts[b].ids + completion[:t]
                assert positions[0, 0, column] == len(prompts[b].ids) + t - 1


def grown(prompts, completions, share=True):
    tree = Tree().add_prompts(prompts, IMAGE, share).add_completions(completions, share)
    check(tree, prompts, completions)
    return tree


def test_a_picture_asked_several_questions_stands_once():
    prompts = [prompt([A], [10, 11, 12]), prompt([A], [20, 21]), prompt([A], [10, 11, 12])]
    tree = grown(prompts, [[[30, 31]], [[32]], [[33]]])
    assert tree.split == 1 + 8 + 3 + 2  # begin, picture, and each question once
    assert [p.key for p in tree.pictures] == ["a"]
    assert tree.prompts[0] == tree.prompts[2]


def test_pictures_of_equal_tokens_are_not_mixed_up():
    prompts = [prompt([A], [10, 11, 12, 13]), prompt([B], [10, 11, 12, 13]), prompt([A, B], [10]), prompt([A, A], [10])]
    tree = grown(prompts, [[[30]]] * 4)
    # Three prompts share the first picture; what two of them have besides stands for itself.
    assert sorted(p.key for p in tree.pictures) == ["a", "a", "b", "b"]


def test_a_picture_whose_tokens_have_others_among_them_is_one_picture():
    """Tiles, each with its row and column before it; the same picture twice, and then another."""
    tiled = [3, *[IMAGE] * 2, 4, *[IMAGE] * 4, 4]  # 6 visual tokens in two runs
    prompts = [
        Prompt([1, *tiled, *tiled, *tiled, last], torch.arange(29)[None], (A, A, second))
        for second, last in ((B, 10), (A, 11))
    ]
    tree = Tree().add_prompts(prompts, IMAGE)
    assert [p.key for p in tree.pictures] == ["a", "a", *sorted(p.key for p in tree.pictures[2:])]
    assert sorted(p.key for p in tree.pictures) == ["a", "a", "a", "b"]


def test_a_completions_last_token_has_no_column():
    tree = grown([prompt([], [10, 11])], [[[30], [31, 32], [33, 34, 35]]])
    assert tree.length - tree.split == 0 + 1 + 2
    assert len(tree.tokens) == 1 + 2 + 3


def test_completions_that_begin_alike_share_their_beginning():
    x = list(range(30, 42))
    tree = grown([prompt([], [10])], [[x, x, x[:8], [*x[:8], 50, 51]]])
    # x once but for its last token; of the fourth only what differs, but for its last token. x[:8] lies within x.
    assert tree.length - tree.split == 11 + 1
    assert len(tree.tokens) == 12 + 2
    assert tree.index[0, 0].tolist() == tree.index[0, 1].tolist()


def test_a_short_common_beginning_is_repeated():
    x = list(range(30, 30 + SHORTEST))
    short, enough = (
        grown([prompt([], [10])], [[[*x[:n], 50, 51], [*x[:n], 60, 61]]]) for n in (SHORTEST - 1, SHORTEST)
    )
    assert short.length - short.split == 2 * (SHORTEST - 1 + 1)
    assert enough.length - enough.split == SHORTEST + 2


def test_nothing_is_shared_across_groups():
    tree = grown([prompt([], [10, 11]), prompt([], [10, 11])], [[[30, 31, 32, 33, 34]], [[30, 31, 32, 33, 34]]])
    assert tree.length - tree.split == 2 * 4


def test_without_sharing_every_completion_stands_alone():
    x = list(range(30, 40))
    tree = grown([prompt([A], [10]), prompt([A], [10])], [[x, x], [x]], share=False)
    assert tree.length == 2 * (1 + 8 + 1) + 3 * 9


@pytest.mark.parametrize("completions", [[[], [[30, 31]]], [[[], []], [[30, 31], []]]])
def test_an_empty_group_takes_no_column(completions):
    tree = grown([prompt([A], [10]), prompt([B], [10, 11])], completions)
    assert tree.length - tree.split == 1
    assert not tree.mask[0].any()


def test_a_prompt_that_is_the_beginning_of_another():
    long = prompt([A], [10, 11, 12, 13])
    short = Prompt(long.ids[:-2], long.positions[:, :-2], long.pictures)
    tree = grown([short, long], [[[30]], [[31]]])
    assert tree.split == len(long.ids)


@pytest.mark.parametrize("seed", range(20))
def test_random_batches(seed):
    """Few different tokens, so that everything is shared with everything else in all ways."""
    rng = random.Random(seed)
    some = [[], [A], [B], [A, B], [A, A], [B, A]]
    prompts = [prompt(rng.choice(some), rng.choices((10, 11), k=rng.randint(1, 6))) for _ in range(6)]
    groups = [[rng.choices((20, 21), k=rng.randint(0, 14)) for _ in range(rng.randint(0, 6))] for _ in prompts]
    shared = grown(prompts, groups)
    alone = grown(prompts, groups, share=False)
    assert shared.length <= alone.length
    # Sharing is worth its while: never more than the different beginnings, and the short ones that were repeated.
    beginnings = {(b, *c[:t]) for b, group in enumerate(groups) for c in group for t in range(1, len(c))}
    splits = len(shared.nodes)
    assert shared.length - shared.split <= len(beginnings) + splits * (SHORTEST - 1)
