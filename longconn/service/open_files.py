"""The process's limit on open files. Every client is an open file."""

from __future__ import annotations

try:
    import resource
except ImportError:  # Windows has no such limit
    resource = None  # type: ignore[assignment]

#: Files that the process needs beside its clients: ports, logs, the reactor's, connections that are about to be
#: refused.
RESERVED = 100


def client_limit() -> int | None:
    """The number of clients that the hard limit allows; None if there is no limit."""
    if resource is None:
        return None
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else max(1, hard - RESERVED)


def raise_limit(clients: int) -> int | None:
    """Raise the soft limit to the hard limit. Without a hard limit, raise it as far as `clients` need.

    Returns the number of clients that the soft limit then allows; None if there is no limit.
    """
    if resource is None:
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return None
    wanted = hard if hard != resource.RLIM_INFINITY else max(soft, clients + RESERVED)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (OSError, ValueError):  # a kernel with a lower limit of its own
        wanted = soft
    return max(1, wanted - RESERVED)
