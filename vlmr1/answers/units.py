"""Whether two units, as written, are the same: cm and centimetres, m² and m^2, apple and apples.

Left out on purpose: conversion. 1 m is not 100 cm here, as it is not in the benchmarks.
"""

from __future__ import annotations

import re

_SYMBOLS = {  # symbol: the names it has, in the singular
    "°": "deg degree",
    "%": "percent pct",
    "°C": "°c celsius degree-celsius",
    "°F": "°f fahrenheit degree-fahrenheit",
    "mm": "millimeter millimetre",
    "cm": "centimeter centimetre",
    "dm": "decimeter decimetre",
    "m": "meter metre",
    "km": "kilometer kilometre",
    "in": "inch inche",
    "ft": "foot feet",
    "yd": "yard",
    "mi": "mile",
    "mg": "milligram",
    "g": "gram gramme",
    "kg": "kilogram kilo",
    "lb": "lbs pound",
    "ml": "mL milliliter millilitre",
    "l": "L liter litre",
    "ms": "millisecond",
    "s": "sec second",
    "min": "minute",
    "h": "hr hrs hour",
    "N": "newton",
    "J": "joule",
    "W": "watt",
    "V": "volt",
    "A": "ampere amp",
    "Ω": "ohm",
    "Pa": "pascal",
    "Hz": "hertz",
    "$": "dollar usd",
    "€": "euro eur",
}
_ALIASES = {name: symbol for symbol, names in _SYMBOLS.items() for name in names.split()}
_LOOSE = {"cm", "km", "kg", "in", "ft", "yd", "lb", "min", "hz"}  # symbols that capitals do not make others
_POWERS = str.maketrans({"²": "2", "³": "3", "^": None, "{": None, "}": None, "μ": "µ"})
_PER = re.compile(r"\s*(?:/|\bper\b)\s*")
_PART = re.compile(r"(square |sq\.? |cubic |cu\.? )?([^\d\s][^\d]*?)(?: ?(squared|cubed|[23]))?")
_WORDED = {"square": "2", "sq": "2", "squared": "2", "cubic": "3", "cu": "3", "cubed": "3"}


def same_unit(a: str, b: str) -> bool:
    """Units as written: names are symbols, plurals singulars; capitals count in symbols, for a mW is no MW."""
    return _one(a) == _one(b)


def _one(unit: str) -> str:
    """A unit in one writing."""
    text = " ".join(unit.translate(_POWERS).split()).strip(" .")
    return "/".join(_part(part) for part in _PER.split(text)[:3])


def _part(text: str) -> str:
    match = _PART.fullmatch(text)
    if match is None:
        return text
    power = match[3] or (match[1] or "").strip(" .")
    return _symbol(match[2].replace("degrees ", "degree-").replace("degree ", "degree-")) + _WORDED.get(power, power)


def _symbol(name: str) -> str:
    if name in _SYMBOLS or name in _ALIASES:
        return _ALIASES.get(name, name)
    small = name.lower()
    if len(small) > 3 and small.endswith("s") and small not in _ALIASES:  # of "ms" the s is its own
        small = small[:-1]
    if small in _ALIASES and len(small) > 2:
        return _ALIASES[small]
    return small if small in _LOOSE or len(name) > 3 else name
