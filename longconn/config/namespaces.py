"""Reads the tables of the TOML file that hold the options of channels.

    [channel_without_namespace]
    history_ttl = "1h"

    [namespaces.news]
    allow_publish_for_client = false

Their keys are the fields of `longconn.core.namespaces.ChannelOptions`, and its defaults hold in every table. A
namespace takes nothing from `channel_without_namespace`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import fields
from typing import Any

from longconn.config.values import BadValue, kind_of, parse
from longconn.core.errors import CommandError, ConfigError, shown
from longconn.core.names import check_channel
from longconn.core.namespaces import NAMESPACE_BOUNDARY, USER_BOUNDARY, ChannelOptions, Namespaces

PLAIN = "channel_without_namespace"
NAMED = "namespaces"
TABLES = (PLAIN, NAMED)
FIELDS = {each.name: each for each in fields(ChannelOptions)}
_BARE = re.compile(r"[A-Za-z0-9_-]+", re.ASCII)


def read_tables(
    tables: Mapping[str, Any], path: str, hint: Callable[[str, Iterable[str]], str]
) -> tuple[Namespaces, dict[str, str]]:
    """The namespaces in `tables` of the file `path`, and the source of each value by its dotted key.

    `hint(name, names)` is the end of an error about an unknown key. Raises ConfigError, of one line.
    """
    sources: dict[str, str] = {}

    def options(value: object, table: str) -> ChannelOptions:
        if not isinstance(value, dict):
            raise ConfigError(f"file {path} key {table}: {shown(value)} is no table; allowed: [{table}]")
        found = {}
        for name, each in value.items():
            key = f"{table}.{name}"
            if name not in FIELDS:
                raise ConfigError(f"file {path}: unknown key {shown(key)}{hint(name, FIELDS)}")
            sources[key] = f"file {path} key {key}"
            found[name] = _parsed(name, each, sources[key])
        return ChannelOptions(**found)

    plain = options(tables.get(PLAIN, {}), PLAIN)
    named = tables.get(NAMED, {})
    if not isinstance(named, dict):
        raise ConfigError(f"file {path} key {NAMED}: {shown(named)} is no table; allowed: [{NAMED}.NAME]")
    found = {}
    for name, value in named.items():
        if not _is_namespace_name(name):
            text = "a namespace's name is that of a channel, without : and #"
            raise ConfigError(f"file {path} key {NAMED}: {shown(name)} is not valid; {text}")
        if name in FIELDS and not isinstance(value, dict):
            raise ConfigError(f"file {path} key {NAMED}.{name}: {name} stands in a table [{NAMED}.NAME] or [{PLAIN}]")
        found[name] = options(value, f"{NAMED}.{_key(name)}")
    return Namespaces(plain, found), sources


def written_tables(namespaces: Namespaces) -> Iterator[tuple[str, list[tuple[str, object]]]]:
    """Pairs of a table's dotted name and its keys with their values. A value that is not set is None."""
    tables = [(f"{NAMED}.{_key(name)}", options) for name, options in namespaces.named.items()]
    if namespaces.plain != ChannelOptions():
        tables.insert(0, (PLAIN, namespaces.plain))
    for table, options in tables:
        yield table, [(name, getattr(options, name)) for name in FIELDS]


def _parsed(name: str, value: object, source: str) -> Any:
    try:
        if kind_of(FIELDS[name]) == "bool" and not isinstance(value, bool):
            raise BadValue(f"{shown(value)} is not valid; allowed: true or false")
        return parse(FIELDS[name], value)
    except BadValue as error:
        raise ConfigError(f"{source}: {error}") from None


def _is_namespace_name(name: str) -> bool:
    try:
        check_channel(name)
    except CommandError:
        return False
    return NAMESPACE_BOUNDARY not in name and USER_BOUNDARY not in name


def _key(name: str) -> str:
    """A TOML key: bare if possible, else quoted. TOML has the escapes of JSON."""
    return name if _BARE.fullmatch(name) else json.dumps(name, ensure_ascii=False)
