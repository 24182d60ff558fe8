"""What each command of Connect does: a function of the conversation, the command's id and its body, in `COMMANDS`.

They raise CommandError for what is refused; its answer is the caller's to write.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from longconn.core.errors import BAD_REQUEST, PERMISSION_DENIED, CommandError
from longconn.core.hub import log
from longconn.core.names import check_channel
from longconn.core.publication import History, Position
from longconn.core.tokens import TokenError
from longconn.protocols.grpc.services.callers import grant
from longconn.protocols.grpc.services.messages import (
    data_of,
    history_message,
    position_message,
    presence_message,
    since_of,
)
from longconn.v1 import longconn_pb2 as pb

if TYPE_CHECKING:
    from longconn.protocols.grpc.services.connect import Conversation


def _subscribe(conversation: Conversation, id: int, request: pb.SubscribeRequest) -> None:
    _no_name(request.name)
    client, channel = conversation.client, check_channel(request.channel)
    try:
        granted = grant(client, conversation.claims, channel, request.token)
    except TokenError as error:
        log.info("%s client from %s refused: %s", client.protocol, client.address, error)
        raise CommandError(PERMISSION_DENIED, what="subscribe to", channel=channel) from None
    # Its answer is written with what was missed, at once.
    done = conversation.asking(id, lambda written: None, large=True)
    conversation.subscribe(id, request, since_of(request), granted, done)


def _unsubscribe(conversation: Conversation, id: int, request: pb.UnsubscribeRequest) -> None:
    conversation.leave(request.channel)
    conversation.reply(id, unsubscribed=pb.Unsubscribed(channel=request.channel))


def _publish(conversation: Conversation, id: int, request: pb.PublishRequest) -> None:
    _no_name(request.name)
    data = data_of(request, conversation.hub.settings.max_message)

    def published(position: Position) -> None:
        conversation.reply(id, published=pb.PublishResponse(position=position_message(position)))

    conversation.client.publish(request.channel, data, conversation.asking(id, published))


def _presence(conversation: Conversation, id: int, request: pb.PresenceRequest) -> None:
    conversation.reply(id, presence=presence_message(conversation.client.presence(request.channel)))


def _history(conversation: Conversation, id: int, request: pb.HistoryRequest) -> None:
    def known(history: History) -> None:
        conversation.reply(id, history=history_message(history))

    done = conversation.asking(id, known, large=True)
    conversation.client.history(request.channel, done, since_of(request), request.limit or -1)


def _ping(conversation: Conversation, id: int, request: pb.PingRequest) -> None:
    conversation.reply(id, pong=pb.Pong())


def _no_name(name: str) -> None:
    if name:
        raise CommandError(BAD_REQUEST, what="a name here is given by connect")


COMMANDS: dict[str, Callable[[Conversation, int, Any], None]] = {
    "subscribe": _subscribe,
    "unsubscribe": _unsubscribe,
    "publish": _publish,
    "presence": _presence,
    "history": _history,
    "ping": _ping,
}
