"""Calls of clients that the program which embeds the hub answers: `Hub.rpc` and `Hub.on_send`."""

from __future__ import annotations

from typing import Any

from longconn.core import commands
from longconn.core.broker import Done
from longconn.core.client import Client
from longconn.core.errors import BAD_DATA, BAD_REQUEST, INTERNAL, METHOD_NOT_FOUND, NOT_AVAILABLE, CommandError
from longconn.core.hub import Hub
from longconn.core.json_text import MalformedJSONError, value, write
from longconn.core.log import about, log
from longconn.core.visible_channels import visible_channels

#: The methods by which a client takes another name in the chat, and lists the channels that it may join. Methods of the
#: program with these names go first.
RENAME = "chat.rename"
CHANNELS = "chat.channels"
BUILT_IN = (RENAME, CHANNELS)


def call_program(hub: Hub, client: Client, command: commands.RPC, done: Done[bytes]) -> None:
    """Call a method; `done` gets its result as JSON. If the method raises, this call alone gets an internal error."""
    method = hub.rpc.get(command.method)
    if method is None and command.method not in BUILT_IN:
        done(CommandError(METHOD_NOT_FOUND) if hub.rpc else CommandError(NOT_AVAILABLE, what="rpc"))
        return

    def returned(result: Any) -> None:
        if isinstance(result, CommandError):
            done(result)
            return
        try:
            written = write(result)
        except (RecursionError, ValueError):  # nested as deeply as the parser goes, or an infinite number
            done(CommandError(BAD_DATA, what="JSON"))
        else:
            done(written)

    try:
        if method is not None:
            method(client, _value(command.data), returned)
        elif command.method == CHANNELS:
            visible_channels(hub, client, lambda channels, total: returned(_listed(channels, total)))
        else:
            returned(_rename(hub, client, _value(command.data)))
    except CommandError as error:
        done(error)
    except Exception:
        log.exception(
            "%s of %s client from %s",
            command.method,
            client.protocol,
            client.address,
            extra=about("internal_error", client),
        )
        done(CommandError(INTERNAL))


def send_to_program(hub: Hub, client: Client, command: commands.Send) -> None:
    """Hand a message over. An exception of the program is logged: a message has no reply."""
    if hub.on_send is not None:
        try:
            hub.on_send(client, _value(command.data))
        except CommandError as error:
            log.info(
                "a message of %s client from %s is not handed over: %s",
                client.protocol,
                client.address,
                error,
                extra=about("message_refused", client),
            )
        except Exception:
            log.exception(
                "a message of %s client from %s", client.protocol, client.address, extra=about("internal_error", client)
            )


def _rename(hub: Hub, client: Client, data: Any) -> dict[str, str]:
    name = data.get("name") if isinstance(data, dict) else None
    if not isinstance(name, str):
        raise CommandError(BAD_REQUEST, what='data is {"name"}')
    hub.rename(client, name)
    return {"name": client.name}


def _listed(channels: list[tuple[str, int]], total: int) -> dict[str, Any]:
    listed = [{"name": name, "num_clients": count} for name, count in channels]
    return {"channels": listed, "num_channels": total}


def _value(data: bytes) -> Any:
    """A JSON value for a program; None without one. Raises CommandError(BAD_DATA)."""
    try:
        return value(data) if data else None
    except MalformedJSONError:
        raise CommandError(BAD_DATA, what="JSON") from None
