"""The last blocks of params.yaml: evaluation, report, publishing, and the gate of a retraining."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlparse

from pydantic import Field, model_validator

from vlmr1.settings.base import Addresses, Block, Count, Few, Rate, Share
from vlmr1.settings.releases import Label, ReleaseName


class Asking(Block):
    """How a source is asked. Greedily always; sampled as well where `temperature` and `samples` say how."""

    seed: int  # of the choice of items, and of the draws
    limit: Count | None  # items a source, the first of a seeded shuffle; null for all
    max_new_tokens: Count
    temperature: Rate | None  # of the sampled column
    samples: Count | None  # completions of each item there

    @property
    def ways(self) -> tuple[tuple[str, float, int], ...]:
        """(name, temperature, completions of each item) of every way of decoding; temperature 0 is greedy."""
        greedy = ("greedy", 0.0, 1)
        if self.temperature is None or self.samples is None:
            return (greedy,)
        return (greedy, ("sampled", self.temperature, self.samples))


PROTOCOLS = {"paper": Asking(seed=42, limit=2000, max_new_tokens=256, temperature=None, samples=None)}
_OWN = tuple(Asking.model_fields)


class Evaluate(Block):
    """Evaluation: a published protocol by its name, or with null one of its own, told by the keys below it."""

    engine: Literal["in-process", "http"]  # the model in this process, or OpenAI-compatible servers
    servers: Addresses | None  # of engine http: their addresses, e.g. [http://localhost:8000/v1]; else null
    served_as: str | None  # of engine http: the model's name there; null: the name of the checkpoint's folder
    timeout: Rate | None  # of engine http: seconds that all completions of a question may take; null: 300
    protocol: Literal["paper"] | None  # paper: VLM-R1's, the first 2,000 of a shuffle, 256 tokens, greedy
    batch: Count  # completions at once
    max_pixels: Annotated[int, Field(ge=56 * 56)] | None  # of a picture as the model sees it; null: convert.max_pixels
    seed: int | None
    limit: Count | None
    max_new_tokens: Count | None
    temperature: Rate | None
    samples: Count | None

    @model_validator(mode="after")
    def _servers_of_http(self) -> Evaluate:
        if self.engine == "http" and self.servers is None:
            raise ValueError("servers: engine http needs addresses; give e.g. [http://localhost:8000/v1]")
        if self.engine != "http" and self.servers is not None:
            raise ValueError("servers: nobody asks them; set engine to http, or servers to null")
        if self.served_as is not None and (self.engine != "http" or not self.served_as):
            raise ValueError("served_as: a model's name on the servers of engine http (else null)")
        if self.timeout is not None and self.engine != "http":
            raise ValueError("timeout: of an answer over engine http (else null)")
        return self

    @model_validator(mode="after")
    def _one_protocol(self) -> Evaluate:
        given = [name for name in _OWN if getattr(self, name) is not None]
        if self.protocol is not None and given:
            raise ValueError(
                f"{', '.join(given)}: protocol {self.protocol} says these; set them to null, or protocol to null"
            )
        if self.protocol is None and (self.seed is None or self.max_new_tokens is None):
            raise ValueError("seed, max_new_tokens: both are needed where no protocol says them")
        if (self.temperature is None) != (self.samples is None):
            raise ValueError("temperature, samples: the sampled column needs both; set both to null for greedy alone")
        return self

    @property
    def own(self) -> bool:
        """Whether this project's own processes load the model."""
        return self.engine == "in-process"

    @property
    def asking(self) -> Asking:
        """What holds: the protocol's, or one's own."""
        if self.protocol is not None:
            return PROTOCOLS[self.protocol]
        return Asking(**{name: getattr(self, name) for name in _OWN})


class Report(Block):
    pictures: Count  # right and wrong answers shown of each model


class Gate(Block):
    """What a retrained candidate must show against the promoted version, on the same items (`vlmr1.gate`)."""

    label: Label  # of the promoted version, e.g. prod
    improve: Few  # evaluation sources on each of which it must be better by more than noise
    level: Annotated[float, Field(ge=0.001, lt=0.5)]  # how likely a gain that is but noise may be taken for one
    gain: Share  # and how much of the judged figure must be gained there at least
    keep: dict[str, Share]  # source: how much of the judged figure may be lost there at most

    @model_validator(mode="after")
    def _once(self) -> Gate:
        if both := set(self.improve) & set(self.keep):
            raise ValueError(f"keep.{min(both)}: improve asks more of it already; name it in one of the two")
        if not self.improve and not self.keep:
            raise ValueError("improve, keep: a gate that asks nothing is none; name a source in one of the two")
        return self


def check_url(url: str) -> None:
    """Raises ValueError where a URL names no store, or carries a secret; the sentence never repeats it."""
    parts = urlparse(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "a store's URL holds no user, key or query; give s3://bucket/prefix, and credentials by AWS_ACCESS_KEY_ID"
            " and AWS_SECRET_ACCESS_KEY or a profile"
        )
    if parts.scheme == "file" and not parts.path.startswith("/"):
        raise ValueError("a store of kind 'file' has a whole path: give file:///srv/releases, or a folder by itself")
    if parts.scheme not in ("", "file", "s3") or (parts.scheme == "s3") != bool(parts.netloc) or not url:
        raise ValueError(
            f"a store of kind {parts.scheme or 'nothing'!r}: give a folder, file:///… or s3://bucket/prefix"
        )


class Publish(Block):
    name: ReleaseName
    store: str  # a folder, file:///… or s3://bucket/prefix
    license: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")]  # as the hub calls it
    merge: bool | None  # under lora: the whole checkpoint instead of the adapter

    @model_validator(mode="after")  # of the block: a sentence about one field would repeat its value
    def _no_secret(self) -> Publish:
        check_url(self.store)
        return self
