"""The addresses of Redis servers, as URLs."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from longconn.core.errors import ConfigError

_PORT = 6379
_SENTINEL_PORT = 26379
_SCHEMES = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
_PARAMETERS = ("ca", "prefix", "verify", "sentinel_user", "sentinel_password")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """Where a Redis server is, and how a process comes in.

    `hosts` are pairs of host and port: of the server, or of Sentinels that know the address of `master`. `path` is that
    of a UNIX socket. Each key and each channel of Pub/Sub begins with `prefix`. `ca` is a file of authorities in PEM.
    Without it those of the system count.
    """

    hosts: tuple[tuple[str, int], ...] = ()
    path: str = ""
    master: str = ""
    user: str = ""
    password: str = ""
    database: int = 0
    tls: bool = False
    verify: bool = True
    ca: str = ""
    prefix: str = "longconn"
    sentinel_user: str = ""
    sentinel_password: str = ""

    def __str__(self) -> str:
        """The address without user and password."""
        hosts = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.hosts]
        where = self.path or ",".join(hosts)
        return f"{self.master} of the Sentinels {where}" if self.master else where


def parse_address(url: str) -> RedisAddress:
    """The address of a URL. Raises ConfigError, whose text has neither user nor password.

    `redis://USER:PASSWORD@HOST:PORT/DATABASE`, `rediss://…` with TLS, `unix:///PATH?…`, and
    `redis+sentinel://USER:PASSWORD@HOST:PORT,HOST:PORT/MASTER/DATABASE`. Parameters: `ca=FILE`, `verify=no`,
    `prefix=NAME`, `sentinel_user=…`, `sentinel_password=…`.
    """
    try:
        parts = urlsplit(url)
        if parts.scheme not in _SCHEMES:
            raise ValueError(f"a URL begins with {', '.join(each + '://' for each in _SCHEMES)}")
        return _parse(parts)
    except ValueError as error:
        raise ConfigError(f"broker: {error}") from None


def _parse(parts: SplitResult) -> RedisAddress:
    given = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    unknown = [each for each in given if each not in _PARAMETERS]
    if unknown or parts.fragment:
        raise ValueError(f"a parameter is {', '.join(_PARAMETERS)}")
    values = {name: found[-1] for name, found in given.items()}
    login, _, where = parts.netloc.rpartition("@")
    user, colon, password = login.partition(":")
    if login and not colon:
        user, password = "", user  # as redis-cli reads redis://PASSWORD@HOST
    sentinel = parts.scheme.endswith("+sentinel")
    path, master, database = "", "", ""
    hosts: tuple[tuple[str, int], ...] = ()
    if parts.scheme == "unix":
        path = unquote(parts.path)
        if where or not path:
            raise ValueError("the URL of a UNIX socket is unix:///PATH")
    else:
        port = _SENTINEL_PORT if sentinel else _PORT
        hosts = tuple(_host(each, port) for each in (where or "127.0.0.1").split(","))
        database = parts.path.strip("/")
        if sentinel:
            master, _, database = database.partition("/")
            if not master:
                raise ValueError("a URL of Sentinels ends in the name of the master")
        elif len(hosts) > 1:
            raise ValueError("one URL names one server; give the option again for another")
    return RedisAddress(
        hosts=hosts,
        path=path,
        master=unquote(master),
        user=unquote(user),
        password=unquote(password),
        database=_database(database),
        tls=parts.scheme.startswith("rediss"),
        verify=values.get("verify", "yes") != "no",
        ca=values.get("ca", ""),
        prefix=values.get("prefix") or "longconn",
        sentinel_user=values.get("sentinel_user", ""),
        sentinel_password=values.get("sentinel_password", ""),
    )


def _host(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname:
        raise ValueError("a host is missing")
    return parts.hostname, parts.port or default


def _database(text: str) -> int:
    if text and not (text.isascii() and text.isdigit()):
        raise ValueError("a database is a number")
    return int(text or 0)
