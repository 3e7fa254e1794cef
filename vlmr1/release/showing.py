"""What a store holds may be written by anybody: characters that would steer a terminal are shown as `?`."""

from __future__ import annotations


def clean_text(text: str) -> str:
    """One line that any terminal shows as it is."""
    return "".join(character if character.isprintable() else "?" for character in text)
