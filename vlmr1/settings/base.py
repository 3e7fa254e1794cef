"""What every block of params.yaml is made of: frozen, strict, nothing unknown."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

Count = Annotated[int, Field(ge=1)]
Rate = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Pair = Annotated[tuple[int, int], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)]
Few = Annotated[tuple[str, ...], BeforeValidator(lambda v: tuple(v) if isinstance(v, list) else v)]  # or none
Names = Annotated[Few, Field(min_length=1)]


def without_path(url: str) -> bool:
    """Whether an address is a host alone, behind which no server speaks OpenAI's protocol: that begins at /v1."""
    return urlsplit(url).path in ("", "/")


def check_address(url: str) -> None:
    """Raises ValueError for what is no server's address: http or https, a host, and a port that is a number, if any."""
    from httpx import URL, InvalidURL  # slow to import, and wanted only where a server is named

    why = ""
    try:
        parts, _ = urlsplit(url), URL(url)
        if parts.scheme not in ("http", "https") or parts.port == 0 or not parts.hostname or " " in parts.netloc:
            why = "a scheme, a host and at most a port are wanted"
    except (ValueError, InvalidURL) as error:
        why = str(error).rstrip(".")
    if why:
        raise ValueError(f"{url!r} is no address ({why}); write e.g. http://localhost:8000/v1")


def _addresses(value: Any) -> Any:
    """Raises ValueError for what is no list of servers' addresses."""
    if not isinstance(value, list | tuple) or not value or not all(isinstance(url, str) for url in value):
        raise ValueError("a list is needed, e.g. [http://localhost:8000/v1]")
    for url in value:
        check_address(url)
        if without_path(url):
            raise ValueError(f"{url}: did you mean {url.rstrip('/')}/v1?")
    if len(set(value)) < len(value):
        raise ValueError("one is named twice; name each once")
    return tuple(value)


Addresses = Annotated[tuple[str, ...], BeforeValidator(_addresses)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]


class Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)
