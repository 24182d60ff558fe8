"""The names under which a channel is kept in Redis (see `longconn.redis.scripts`)."""

from __future__ import annotations


class RedisKeys:
    """The keys of channels, and their channels of Pub/Sub, which all begin with `prefix`."""

    __slots__ = ("_messages", "prefix")

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self._messages = f"{prefix}:messages:"

    def messages(self, channel: str) -> str:
        """The channel of Pub/Sub on which a channel's events come."""
        return self._messages + channel

    def topic(self, name: str) -> str:
        """The channel of Pub/Sub on which processes send each other messages about `name`."""
        return f"{self.prefix}:nodes:{name}"

    def channel(self, messages: bytes) -> str:
        """The inverse of `messages`."""
        return messages.decode()[len(self._messages) :]

    def base(self, channel: str) -> str:
        """What the keys of a channel begin with. Only what is in braces decides about the slot in a cluster."""
        tag = channel.replace("%", "%25").replace("}", "%7D") if "}" in channel or "%" in channel else channel
        return f"{self.prefix}:{{{tag}}}:"
