"""The limit on open files: every client is one."""

from __future__ import annotations

try:
    import resource
except ImportError:  # not on Windows, which has no such limit
    resource = None  # type: ignore[assignment]

#: What a process needs beside its clients: ports, logs, the reactor's own, HTTP connections that come to be told off.
RESERVED = 100


def room() -> int | None:
    """For how many clients the hard limit leaves room; None if it is no limit."""
    if resource is None:
        return None
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return None if hard == resource.RLIM_INFINITY else max(1, hard - RESERVED)


def raise_limit(clients: int) -> int | None:
    """Raise the soft limit to the hard one, or if that is none to what `clients` need.

    For how many clients the soft limit leaves room then, None if it is no limit.
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
