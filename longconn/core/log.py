"""The log: lines for people, with fields for programs.

The core does not know where lines go: it logs through the standard library, with one logger. Each line has the name of
its event, and the fields that it is about: `log.info("… came", extra=about("client_connected", client))`.
"""

from __future__ import annotations

import logging
from typing import Protocol

log = logging.getLogger("longconn")

#: The fields that a line may have beside its event, in the order in which they are written.
FIELDS = ("protocol", "client", "name", "user", "address", "channel", "code")


class _Known(Protocol):
    """A caller, or a connection that asks to become one."""

    @property
    def protocol(self) -> str: ...
    @property
    def address(self) -> str: ...


def about(
    event: str,
    caller: _Known | None = None,
    *,
    address: object = None,
    protocol: str = "",
    channel: str = "",
    code: int | None = None,
) -> dict[str, object]:
    """The `extra` of a line of the log. A client as `caller` brings its id, name and user, its address and protocol."""
    fields: dict[str, object] = {"event": event}
    if caller is not None:
        fields["protocol"], fields["address"] = caller.protocol, caller.address
        for field, attribute in (("client", "id"), ("name", "name"), ("user", "user")):
            if value := getattr(caller, attribute, ""):
                fields[field] = value
    if address is not None:
        fields["address"] = str(address)
    if protocol:
        fields["protocol"] = protocol
    if channel:
        fields["channel"] = channel
    if code is not None:
        fields["code"] = code
    return {"fields": fields}
