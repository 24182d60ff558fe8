"""Loads the configuration from its sources. The first source that has a value wins:

    1. flags                          --max-message=1MiB
    2. variables of the environment   LONGCONN_MAX_MESSAGE=1MiB
    3. the TOML file                  max_message = "1MiB"
    4. the defaults of `Settings`

A list replaces the whole list of a later source. `--config` or LONGCONN_CONFIG names the file. Its keys are the
options' names with underscores. A variable holds a list with commas; an empty variable counts as not set. An unknown
option or a bad value is a `ConfigError` of one line, which names the source.

Options of channels are tables of the file, and no other source has them (`longconn.config.namespaces`).
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from longconn.auth.jwt import JWTVerifier
from longconn.config import endpoints
from longconn.config import namespaces as channel_tables
from longconn.config.certificates import check_options
from longconn.config.values import BadValue, is_list, is_secret, parse, strings
from longconn.core.errors import CommandError, ConfigError, nearest, shown
from longconn.core.namespaces import NAMESPACE_BOUNDARY, personal_channel
from longconn.core.proxies import TrustedProxies
from longconn.core.settings import OPTIONS, Settings

#: The options for ports, which are no fields of `Settings`.
PORTS = ("port", "tcp", "http", "grpc", "admin")
NAMES = (*PORTS, *OPTIONS)
PREFIX = "LONGCONN_"

#: Variables that are no options of the server: the file's name, and the clients' address and token.
_OTHER_VARIABLES = ("LONGCONN_CONFIG", "LONGCONN_URL", "LONGCONN_TOKEN", "LONGCONN_PASSWORD")
# Kubernetes sets these in every pod if there is a service with the name longconn ("service links").
_SERVICE_LINK = re.compile(r"LONGCONN_(?:SERVICE_(?:HOST|PORT\w*)|PORT_\d+_(?:TCP|UDP|SCTP)\w*)")


@dataclass(frozen=True, slots=True)
class Config:
    """The effective configuration: the settings, the ports, and the source of each value.

    `port`, `tcp`, `http`, `grpc` and `admin` are listening strings (`longconn.config.endpoints`) as they were written.
    `sources` maps each name to "default", "flag --x", "environment LONGCONN_X" or "file F key x".
    """

    settings: Settings = field(default_factory=Settings)
    port: tuple[str, ...] = ()
    tcp: tuple[str, ...] = ()
    http: tuple[str, ...] = ()
    grpc: tuple[str, ...] = ()
    admin: tuple[str, ...] = ()
    sources: Mapping[str, str] = field(default_factory=dict)

    def value(self, name: str) -> Any:
        """The value of one of `NAMES`."""
        return getattr(self if name in PORTS else self.settings, name)


#: the table of the file for options that begin with `hook_`
_HOOKS = "hooks"


def flag(name: str) -> str:
    """The flag of an option: `max_message` is `--max-message`."""
    return "--" + name.replace("_", "-")


def load(flags: Mapping[str, str | Sequence[str]], environ: Mapping[str, str], file: str | None = None) -> Config:
    """Load the configuration from flags, environment and file.

    `flags` maps options' names to texts or lists of texts. `file` is the value of `--config`. Raises ConfigError, of
    one line.
    """
    values: dict[str, Any] = {}
    sources = dict.fromkeys(NAMES, "default")
    origin = "flag --config" if file else "environment LONGCONN_CONFIG"
    path = file or environ.get("LONGCONN_CONFIG")
    # From the weakest source to the strongest: each overwrites values of the one before.
    if path:
        file_values = _read(path, origin)
        file_values |= _hooks(file_values.pop(_HOOKS, {}), path)
        tables = {name: file_values.pop(name) for name in channel_tables.TABLES if name in file_values}
        values["namespaces"], found = channel_tables.read_tables(tables, path, _hint)
        sources.update(found)
        for name, value in file_values.items():
            sources[name] = f"file {path} key {name}"
            values[name] = _parsed(name, value, sources[name])
    for name, text in _variables(environ).items():
        sources[name] = f"environment {PREFIX}{name.upper()}"
        values[name] = _parsed(name, _listed(text) if _is_list(name) else text, sources[name])
    for name, given in flags.items():
        sources[name] = f"flag {flag(name)}"
        values[name] = _parsed(name, given, sources[name])
    ports = {name: values.pop(name, ()) for name in PORTS}
    if not any(listened for name, listened in ports.items() if name != "admin"):
        ports["port"] = endpoints.default_ports()
    _check_ports(ports, sources)
    settings = Settings(**values)
    _check(settings, sources)
    return Config(settings, sources=sources, **ports)


def _check_ports(ports: Mapping[str, Sequence[str]], sources: Mapping[str, str]) -> None:
    """Refuse a port that is given twice: to listen there would fail as if another process did. Raises ConfigError."""
    given = [(name, text) for name, texts in ports.items() for text in texts]
    for number, (name, text) in enumerate(given):
        for other, before in given[:number]:
            if endpoints.are_same(before, text):
                where = sources[name] if sources[name] != "default" else f"the default of {flag(name)}"
                raise ConfigError(f"{where}: {shown(text)} is the same port as {shown(before)} of {flag(other)}")


def _check(settings: Settings, sources: Mapping[str, str]) -> None:
    """Check options against each other. Raises ConfigError."""
    namespaces = settings.effective_namespaces()
    name = settings.user_personal_channel_namespace
    there = f"there are {', '.join(namespaces.named)}" if namespaces.named else "the file defines none"
    if name and name not in namespaces.named:
        raise ConfigError(f"{sources['user_personal_channel_namespace']}: {shown(name)} is no namespace; {there}")
    try:
        namespaces.options(settings.default_channel)
    except CommandError:
        name = settings.default_channel.partition(NAMESPACE_BOUNDARY)[0]
        raise ConfigError(f"{sources['default_channel']}: {shown(name)} is no namespace; {there}") from None
    if settings.user_personal_channel:
        channel = personal_channel("ID", settings.user_personal_channel_namespace) or ""
        if not namespaces.options(channel).allow_user_limited_channels:
            # Otherwise any client could subscribe to the personal channel of any user.
            needs = "a token key, and allow_user_limited_channels not false"
            raise ConfigError(f"{sources['user_personal_channel']}: channels as {channel} need {needs}")
    check_options(settings)
    if settings.admin_user and not settings.has_users:
        raise ConfigError(f"{sources['admin_user']}: needs passwords (auth) or tokens, by which a user is known")
    TrustedProxies(settings.trusted_proxy)
    JWTVerifier(settings)


def to_toml(config: Config) -> str:
    """`config` as a TOML file for `--config`. A comment on each line names the source of the value."""
    lines = [_line(name, config.value(name), config.sources[name]) for name in NAMES]
    for table, values in channel_tables.written_tables(config.settings.namespaces):
        lines += ["", f"[{table}]"]
        lines += [_line(name, value, config.sources.get(f"{table}.{name}", "default")) for name, value in values]
    return "\n".join(lines) + "\n"


def _line(name: str, value: object, source: str) -> str:
    if value is None:  # TOML has no null
        return f"# {name} is not set  # {_comment(source)}"
    if value and name in OPTIONS and is_secret(OPTIONS[name]):
        return f"# {name} is set, and not shown  # {_comment(source)}"
    return f"{name} = {_literal(value)}  # {_comment(source)}"


def _read(path: str, origin: str) -> dict[str, Any]:
    try:
        values = tomllib.loads(Path(path).read_bytes().decode())
    except OSError as error:
        raise ConfigError(f"{origin}: cannot read {shown(path, 200)}: {error.strerror or error}") from error
    except ValueError as error:  # not UTF-8, or tomllib.TOMLDecodeError
        raise ConfigError(f"file {path}: not TOML: {' '.join(str(error).split())}") from error
    for name in values:
        if name not in NAMES and name not in (*channel_tables.TABLES, _HOOKS):
            raise ConfigError(f"file {path}: unknown {_unknown(name, values[name])}")
    return values


def _unknown(name: str, value: object) -> str:
    """What an error calls an unknown key or table, and a hint."""
    wanted = name.replace("-", "_").lower()
    if not isinstance(value, dict):
        found = nearest(wanted, (*NAMES, channel_tables.NAMED))
        if found.endswith(f" {channel_tables.NAMED}?"):
            found = f"; did you mean a table [{channel_tables.NAMED}.NAME]?"
        return f"key {shown(name)}{found or _hint(wanted, NAMES)}"
    below = next((each for each, inner in value.items() if isinstance(inner, dict)), None)
    written = f"[{name}.{below}]" if below else f"[{name}]"
    named = f"{channel_tables.NAMED}.{below or 'NAME'}"
    # Most tables with others in them are meant for namespaces, and a channel's options for those without one.
    tables = {channel_tables.NAMED: named, "channels": named, "channel": channel_tables.PLAIN, _HOOKS: _HOOKS}
    close = difflib.get_close_matches(wanted, list(tables), 1)
    if close:
        return f"table {written}; did you mean [{tables[close[0]]}]?"
    return f"table {written}; there are [{channel_tables.PLAIN}], [{channel_tables.NAMED}.NAME] and [{_HOOKS}]"


def _hooks(table: Any, path: str) -> dict[str, Any]:
    """The keys of the table `[hooks]`: `connect` is `hook_connect`."""
    if not isinstance(table, dict):
        raise ConfigError(f"file {path}: [hooks] is a table")
    known = [name.removeprefix("hook_") for name in NAMES if name.startswith("hook_")]
    for name in table:
        if name not in known:
            raise ConfigError(f"file {path}: unknown key {shown(name)} in [hooks]{_hint(name, known)}")
    return {f"hook_{name}": value for name, value in table.items()}


def _variables(environ: Mapping[str, str]) -> dict[str, str]:
    """The options that the environment sets, by name."""
    found = {}
    for variable in sorted(environ):
        text = environ[variable]
        if not variable.startswith(PREFIX) or not text or variable in _OTHER_VARIABLES:
            continue
        if _SERVICE_LINK.fullmatch(variable) or (variable == "LONGCONN_PORT" and "://" in text):
            continue
        name = variable.removeprefix(PREFIX).lower()
        if name not in NAMES or variable != variable.upper():
            known = [PREFIX + each.upper() for each in NAMES]
            raise ConfigError(f"environment: unknown variable {shown(variable)}{_hint(variable.upper(), known)}")
        found[name] = text
    return found


def _hint(name: str, names: Iterable[str]) -> str:
    return nearest(name, names) or "; `longconn config` prints the keys that are allowed"


def _is_list(name: str) -> bool:
    return name in PORTS or is_list(OPTIONS[name])


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _parsed(name: str, value: object, source: str) -> Any:
    try:
        if name not in PORTS:
            return parse(OPTIONS[name], value)
        # The file may have a whole number: `port = 9999`.
        found = value if isinstance(value, list) else [value]
        texts = [str(each) if type(each) is int else each for each in found]
        for text in strings(texts):
            endpoints.check(text)
        return tuple(texts)
    except (BadValue, ConfigError) as error:
        raise ConfigError(f"{source}: {error}") from None


def _literal(value: Any) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return '"' + re.sub(r'[\x00-\x1f"\\\x7f]', lambda match: f"\\u{ord(match[0]):04x}", value) + '"'
    return repr(value)


def _comment(source: str) -> str:
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in source)
