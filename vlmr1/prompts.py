"""The prompts a model is trained on or asked: samples, with their pictures and questions encoded when wanted."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch.utils.data import Dataset

from vlmr1.families.base import Family, Prompt
from vlmr1.pictures import PictureFault, open_picture
from vlmr1.sample import Sample, Source
from vlmr1.tasks import TASKS


class UnreadablePicture(ValueError):
    """A picture that does not open, in the middle of a run."""

    def __init__(self, row: str, path: Path, reason: str) -> None:
        super().__init__(row, path, reason)  # all it is made of, so that it travels from a worker process
        self.row, self.path, self.reason = row, path, reason

    def __str__(self) -> str:
        return (
            f"{self.row}: picture {self.path} cannot be read ({self.reason}); mend it, and the same command goes on"
            " from the last checkpoint"
        )


Item = tuple[int, Prompt | UnreadablePicture | None]  # a sample's place; its prompt unless it was encoded before
Items = Sequence[Item]


def opened(source: Source, sample: Sample) -> list[Image.Image]:
    """A sample's pictures, decoded. Raises UnreadablePicture naming the row, the file and the mend."""
    images = []
    for path in source.pictures(sample):
        try:
            with open_picture(path) as picture:
                images.append(picture.convert("RGB"))
        except PictureFault as error:
            raise UnreadablePicture(f"{source.name} id {sample.id}", path, str(error)) from error
    return images


def encode(family: Family, source: Source, sample: Sample, images: Sequence[Image.Image] | None = None) -> Prompt:
    """A sample's prompt; `images` are its pictures where they are at hand. Raises UnreadablePicture as `opened`."""
    images = opened(source, sample) if images is None else images
    try:
        return family.encode(TASKS[sample.task].prompt(sample), images, [str(p) for p in source.pictures(sample)])
    except ValueError as error:  # a picture too thin for the processor, a text that says a placeholder
        raise ValueError(f"{source.name} id {sample.id}: {error}") from error


def _length(family: Family, source: Source, sample: Sample) -> int:
    """Tokens of a sample's prompt, without opening its pictures. Raises ValueError where their sizes are unknown."""
    if len(sample.sizes) != len(sample.images):
        raise ValueError(
            f"{source.name} id {sample.id}: {len(sample.images)} pictures and {len(sample.sizes)} sizes, so that the"
            " prompt's length is unknown; convert the source with its pictures there, or set max_prompt_length to null"
        )
    return family.prompt_length(TASKS[sample.task].prompt(sample), sample.sizes)


class Prompts(Dataset[Item]):
    """The samples of several sources. `dropped` counts those whose prompt is longer than `longest` tokens."""

    def __init__(self, sources: Sequence[Source], family: Family, longest: int | None = None) -> None:
        everything = [(source, sample) for source in sources for sample in source.samples]
        self.family = family
        self.items = [
            (source, sample)
            for source, sample in everything
            if longest is None or _length(family, source, sample) <= longest
        ]
        self.dropped = len(everything) - len(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def sample(self, index: int) -> Sample:
        return self.items[index][1]

    def pictures(self, index: int) -> list[Path]:
        source, sample = self.items[index]
        return source.pictures(sample)

    def unreadable(self) -> list[Path]:
        """Pictures whose files say at once that they are broken: all can be mended before training goes on."""
        broken = []
        for path in dict.fromkeys(path for source, sample in self.items for path in source.pictures(sample)):
            try:
                with open_picture(path) as picture:
                    picture.verify()
            except (PictureFault, OSError):
                broken.append(path)  # none of them is used now; each is named when its step comes
        return broken

    def encode(self, index: int) -> Prompt:
        return encode(self.family, *self.items[index])

    def __getitem__(self, index: int) -> Item:
        """A sampler's index; -1 - i is sample i once more, which whoever asks has still encoded.

        What could not be read is handed on, to be raised when its step comes.
        """
        if index < 0:
            return -1 - index, None
        try:
            return index, self.encode(index)
        except UnreadablePicture as error:
            return index, error
