"""The options of channels by namespace, and the rights that follow from them.

The part of a channel's name before the first `:` is its namespace. The options have the names and meanings of
Centrifugo's (centrifugal/centrifugo, `internal/configtypes/namespace.go`), but not the defaults. Centrifugo allows
nothing until an option allows it. longconn allows everything until an option forbids it, because without a
configuration it is a chat.

    user        a client whose token has a user id      anonymous    a client without one
    client      a user, subscribed or not               subscriber   a user that is in the channel
    *_for_anonymous gives the rights of the other two options to anonymous clients, as in Centrifugo.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from longconn.core.errors import UNKNOWN_CHANNEL, CommandError

#: Ends the name of a namespace, starts the list of user ids in a channel's name, separates these ids.
NAMESPACE_BOUNDARY = ":"
USER_BOUNDARY = "#"
USER_SEPARATOR = ","


class Action(Enum):
    """A use of a channel that needs a right. The values are for error texts: the channel's name follows them."""

    SUBSCRIBE = "subscribe to"
    PUBLISH = "publish in"
    PRESENCE = "presence of"
    HISTORY = "history of"


def option(
    default: Any, help: str, unit: str = "", low: float | None = 0, choices: tuple[str, ...] = (), form: str = ""
) -> Any:
    """A field that is an option of the configuration. `unit` names what a number counts, `low` is its least value.

    `form` says what a string contains: a `channel`, any `text`, the name of a `namespace`, or a `secret`, which is
    never displayed.
    """
    metadata = {"help": help, "unit": unit, "low": low, "choices": choices, "form": form}
    return field(default=default, repr=form != "secret", metadata=metadata)


#: Seconds, and what so many are called.
_UNITS = ((86_400, "day"), (3_600, "hour"), (60, "minute"))


@dataclass(frozen=True, slots=True)
class ChannelOptions:
    """The options of the channels of one namespace. None takes the value of the settings."""

    history_size: int | None = option(None, "publications kept in a channel; 0 keeps none", "publications")
    history_ttl: float | None = option(None, "how long a publication is kept; 0 keeps none", "seconds")
    presence: bool = option(True, "whether clients may ask for the subscribers of a channel")
    join_leave: bool = option(True, "whether joins and leaves are announced")
    force_push_join_leave: bool = option(False, "Centrifugo clients are sent joins and leaves without asking for them")
    force_positioning: bool = option(False, "subscriptions of Centrifugo clients are positioned without asking for it")
    force_recovery: bool = option(False, "subscriptions of Centrifugo clients are recoverable without asking for it")
    allow_recovery: bool = option(False, "a subscriber may recover what it missed, even without the right to history")
    allow_subscribe_for_client: bool = option(True, "users may subscribe without a token for the channel")
    allow_subscribe_for_anonymous: bool = option(True, "anonymous clients may too, if users may")
    allow_publish_for_client: bool = option(True, "users may publish, subscribed or not")
    allow_publish_for_subscriber: bool = option(True, "subscribed users may publish")
    allow_publish_for_anonymous: bool = option(True, "anonymous clients may too, if users may")
    allow_presence_for_client: bool = option(True, "users who may subscribe may ask for the subscribers")
    allow_presence_for_subscriber: bool = option(True, "subscribed users may ask for the subscribers")
    allow_presence_for_anonymous: bool = option(True, "anonymous clients may too, if users may")
    allow_history_for_client: bool = option(True, "users who may subscribe may read the history")
    allow_history_for_subscriber: bool = option(True, "subscribed users may read the history")
    allow_history_for_anonymous: bool = option(True, "anonymous clients may too, if users may")
    hook_subscribe: bool = option(False, "the application decides who may subscribe; others read no history either")
    hook_publish: bool = option(False, "the application decides who may publish, and what")
    hook_sub_refresh: bool = option(False, "the application decides whether a subscription goes on when it expires")
    allow_user_limited_channels: bool | None = option(
        None, "a channel NAME#ID,ID is only for the users with these ids; not set: yes where clients may have users"
    )

    @property
    def keeps(self) -> bool:
        """Whether the channels keep any history."""
        return bool(self.history_size and self.history_ttl)

    def describe_history(self) -> str:
        """How long messages are kept, for people: the end of a sentence that begins with the channel."""
        if not self.keeps:
            return "keeps no messages"
        seconds = self.history_ttl or 0
        unit, name = next((each for each in _UNITS if seconds >= each[0] and seconds % each[0] == 0), (1, "second"))
        number = seconds / unit
        return f"keeps the last {self.history_size:,} messages for {number:g} {name}{'' if number == 1 else 's'}"


#: The three options of an action: for a client, for a subscriber, for anonymous clients.
_RIGHTS: dict[Action, tuple[str, str, str]] = {
    action: (f"allow_{word}_for_client", f"allow_{word}_for_subscriber", f"allow_{word}_for_anonymous")
    for action, word in ((Action.PUBLISH, "publish"), (Action.PRESENCE, "presence"), (Action.HISTORY, "history"))
}


@dataclass(frozen=True, slots=True)
class Namespaces:
    """The options of every channel: `named` by namespace, `plain` for channels without a namespace.

    If `named` is empty, `plain` applies to all channels, also to those with a `:` in their name.
    """

    plain: ChannelOptions = field(default_factory=ChannelOptions)
    named: Mapping[str, ChannelOptions] = field(default_factory=dict)

    def options(self, channel: str) -> ChannelOptions:
        """The options of a channel. Raises CommandError(UNKNOWN_CHANNEL) if its namespace is not defined."""
        if not self.named:
            return self.plain
        name, boundary, _ = channel.partition(NAMESPACE_BOUNDARY)
        if not boundary:
            return self.plain
        found = self.named.get(name)
        if found is None:
            raise CommandError(UNKNOWN_CHANNEL, channel=channel)
        return found

    def filled(self, **defaults: Any) -> Namespaces:
        """The same namespaces, with `defaults` in place of the options that are None."""

        def fill(options: ChannelOptions) -> ChannelOptions:
            return replace(options, **{name: each for name, each in defaults.items() if getattr(options, name) is None})

        return self._each(fill)

    def changed(self, **values: Any) -> Namespaces:
        """The same namespaces, with `values` in place of the options, whatever these are."""
        return self._each(lambda options: replace(options, **values))

    def _each(self, change: Callable[[ChannelOptions], ChannelOptions]) -> Namespaces:
        return Namespaces(change(self.plain), {name: change(each) for name, each in self.named.items()})


def limited_to(channel: str, options: ChannelOptions) -> Collection[str] | None:
    """The user ids after the last `#` of a channel's name. None if the channel is not limited to users."""
    if options.allow_user_limited_channels and USER_BOUNDARY in channel:
        # An empty id would open `NAME#` to anonymous clients.
        return [each for each in channel.rpartition(USER_BOUNDARY)[2].split(USER_SEPARATOR) if each]
    return None


def personal_channel(user: str, namespace: str = "") -> str | None:
    """The channel of one user, `#ID` or `NAMESPACE:#ID`. None for an empty id, and for one that names several users."""
    if not user or USER_BOUNDARY in user or USER_SEPARATOR in user:
        return None
    return (namespace + NAMESPACE_BOUNDARY if namespace else "") + USER_BOUNDARY + user


def allowed(
    action: Action,
    channel: str,
    options: ChannelOptions,
    user: str = "",
    subscribed: bool = False,
    granted: bool = False,
) -> bool:
    """Whether `user` (empty: anonymous) may do `action` in `channel`.

    `subscribed` says that the user is in the channel, `granted` that a token or the server lets it in. A user that may
    not subscribe may read neither presence nor history, whatever the options for these say. Publishing does not need
    the right to subscribe: a program may report where it may not read. A channel that is limited to users is an
    exception: other users may not publish there.
    """
    if action is Action.SUBSCRIBE:
        return granted or _may_subscribe(channel, options, user)
    users = limited_to(channel, options)
    inside = subscribed or granted
    if users is not None and not inside and user not in users:
        return False
    for_client, for_subscriber, for_anonymous = _RIGHTS[action]
    if not user and not getattr(options, for_anonymous):
        return False
    if inside and getattr(options, for_subscriber):
        return True
    if not getattr(options, for_client):
        return False
    return action is Action.PUBLISH or inside or _may_subscribe(channel, options, user)


def _may_subscribe(channel: str, options: ChannelOptions, user: str) -> bool:
    users = limited_to(channel, options)
    if users is not None:
        return user in users
    if options.hook_subscribe:
        return False
    return options.allow_subscribe_for_client and (bool(user) or options.allow_subscribe_for_anonymous)


def may_recover(channel: str, options: ChannelOptions, user: str) -> bool:
    """Whether a subscriber gets missed publications: an option says so, or it may read the history anyway."""
    if options.force_recovery or options.allow_recovery:
        return True
    return allowed(Action.HISTORY, channel, options, user, subscribed=True)
