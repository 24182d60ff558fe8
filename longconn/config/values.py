"""Parses the values of options, from the text of a flag, a variable or a file to the type that `Settings` holds.

    sizes     65536   64KiB   1MiB   1M   (K, M and G count 1024s)
    times     25   1.5   300s   5m   1h   (without a unit: seconds)
    counts    20000
    rates     100   0.5   (a second)
    booleans  true   false   (in flags and variables also yes, no, on, off, 1, 0)

Every function raises `BadValue`, whose text names the value and the allowed ones. The caller puts the source in
front.
"""

from __future__ import annotations

import re
from dataclasses import Field
from typing import Any

from longconn.core.errors import CommandError, shown
from longconn.core.names import check_channel
from longconn.core.origins import normal_host, normal_origin

_NUMBER = re.compile(r"(\d+(?:\.\d+)?|\.\d+) ?([A-Za-z]*)", re.ASCII)
_SIZE_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmg", start=1):
    _SIZE_UNITS[_letter] = _SIZE_UNITS[_letter + "ib"] = 1024**_power
#: Limits beyond any sensible value, and within the ranges of timers and sockets.
_DIGITS, _HUGE = 18, 10**18
_BOOLEANS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
_TIME_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class BadValue(ValueError):
    """A value that an option cannot have. The text is a part of one line."""


def is_list(option: Field[Any]) -> bool:
    """Whether the option may be given more than once."""
    return str(option.type).startswith("tuple")


def kind_of(option: Field[Any]) -> str:
    """The type of one value of the option: `str`, `bool`, `int`, `float`."""
    return str(option.type).removesuffix(" | None")


def is_secret(option: Field[Any]) -> bool:
    """Whether the option's value must not be printed or logged."""
    return bool(option.metadata["form"] == "secret")


def parse(option: Field[Any], value: object) -> Any:
    """Parse a value of `option`: text, or a value that TOML has parsed. Raises BadValue."""
    if is_list(option):
        return tuple(_element(option.name, each) for each in strings(value))
    if kind_of(option) == "str":
        return _string(option, value)
    if kind_of(option) == "bool":
        return _boolean(option, value)
    return _number(option, value)


def strings(value: object) -> list[str]:
    """A list of strings; one string counts as a list of one. Raises BadValue."""
    found = []
    for each in value if isinstance(value, list | tuple) else [value]:
        if not isinstance(each, str):
            raise BadValue(f"{shown(each)} is no string; allowed: a list of strings")
        found.append(each)
    return found


def allowed(option: Field[Any]) -> str:
    """The allowed values of an option, for a line of help or an error."""
    choices = option.metadata["choices"]
    if choices:
        return " or ".join(choices)
    kind = kind_of(option)
    form = option.metadata["form"]
    if kind == "bool":
        return "true or false"
    if form == "secret":
        return "a string, which is shown nowhere"
    if form == "namespace":
        return "the name of a namespace of the file"
    if form == "text":
        return "a string"
    if kind == "str":
        return "1 to 255 bytes of UTF-8 without white space or control characters"
    low = option.metadata["low"] or 0
    unit = option.metadata["unit"]
    if unit == "seconds":
        return f"seconds from {low}, or 300s, 5m, 1h"
    if unit.startswith("bytes"):
        return f"{unit} from {low}, or 64KiB, 1MiB, 1G"
    number = "a whole number" if kind == "int" else "a number"
    return f"{number} from {low}"


def _string(option: Field[Any], value: object) -> str:
    choices = option.metadata["choices"]
    if isinstance(value, str):
        if choices and value in choices:
            return value
        if not choices and (option.metadata["form"] != "channel" or _is_channel(value)):
            return value
    if is_secret(option):
        raise BadValue(f"not valid; allowed: {allowed(option)}")
    raise BadValue(f"{shown(value)} is not valid; allowed: {allowed(option)}")


def _boolean(option: Field[Any], value: object) -> bool:
    if isinstance(value, bool):
        return value
    found = _BOOLEANS.get(value.strip().lower()) if isinstance(value, str) else None
    if found is None:
        raise BadValue(f"{shown(value)} is not valid; allowed: {allowed(option)}")
    return found


def _is_channel(value: str) -> bool:
    try:
        check_channel(value)
    except CommandError:
        return False
    return True


def _number(option: Field[Any], value: object) -> int | float:
    unit = option.metadata["unit"]
    units = _TIME_UNITS if unit == "seconds" else _SIZE_UNITS if unit.startswith("bytes") else {"": 1}
    number = _amount(value, units)
    whole = kind_of(option) == "int"
    if number is None or number < (option.metadata["low"] or 0) or (whole and number != int(number)):
        raise BadValue(f"{shown(value)} is not valid; allowed: {allowed(option)}")
    return int(number) if whole or number == int(number) else number


def _amount(value: object, units: dict[str, int]) -> int | float | None:
    """The number that `value` is or spells; None if it is not a finite number."""
    if isinstance(value, bool):
        return None
    number: int | float
    if isinstance(value, int | float):
        number = value
    else:
        match = _NUMBER.fullmatch(value.strip()) if isinstance(value, str) else None
        factor = units.get(match[2].lower()) if match else None
        if match is None or factor is None or len(match[1]) > _DIGITS:
            return None
        number = factor * (float(match[1]) if "." in match[1] else int(match[1]))
    return number if -_HUGE < number < _HUGE else None  # neither NaN nor infinity is between


def _element(name: str, value: str) -> str:
    if name == "allowed_origin":
        origin = normal_origin(value)
        if origin is None:
            allowed = "https://example.org, http://localhost:8000, file://, null, *"
            raise BadValue(f"{shown(value)} is no origin; allowed: {allowed}")
        return origin
    if name == "allowed_host":
        host = normal_host(value)
        if host is None:
            raise BadValue(f"{shown(value)} is no host; allowed: a host name without a port, as chat.example.org, or *")
        return host
    return value
