"""Who a peer is, and what it brings to prove that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from longconn.core.disconnects import INVALID_TOKEN, PERMISSION_DENIED, SERVER_ERROR, Disconnect
from longconn.core.errors import BROKER_UNAVAILABLE, INTERNAL, UNAUTHORIZED, CommandError, Reason
from longconn.core.namespaces import Action


class AdmissionError(CommandError):
    """A peer is not let in. `why` is for the log and contains no secret; the peer does not read it.

    `disconnect` closes a connection that has no other answer to its opening.
    """

    def __init__(self, why: str, reason: Reason = UNAUTHORIZED, disconnect: Disconnect = INVALID_TOKEN) -> None:
        super().__init__(reason)
        self.why = why
        self.disconnect = disconnect


def disconnect_of(error: CommandError) -> Disconnect:
    """The reason for closing a client that is not let in because of `error`."""
    if isinstance(error, AdmissionError):
        return error.disconnect
    return SERVER_ERROR if error.reason in (INTERNAL, BROKER_UNAVAILABLE) else PERMISSION_DENIED


@dataclass(frozen=True, slots=True)
class Granted:
    """A token's right to one channel: JSON for presence and publications (`info`), and for the subscriber (`data`)."""

    info: bytes = b""
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class Capability:
    """A token's right to some actions in one channel, or in those whose names begin with `name`."""

    name: str
    is_prefix: bool
    actions: frozenset[Action]

    def allows(self, action: Action, channel: str) -> bool:
        """Whether it gives the right to `action` in `channel`."""
        return action in self.actions and (channel.startswith(self.name) if self.is_prefix else channel == self.name)


@dataclass(frozen=True, slots=True)
class Identity:
    """A user, and what the proof of it grants. Times are in seconds since 1970, `info` is JSON (empty: none)."""

    #: empty for an anonymous peer
    user: str = ""
    #: when a connection of it expires; None: never
    expires_at: float | None = None
    #: others read this
    info: bytes = b""
    #: the channels to which the server subscribes a program, and which anything else may subscribe to
    subs: Mapping[str, Granted] = field(default_factory=dict)
    #: the id and the time of issue of its token, by which it can be revoked
    token_id: str = ""
    issued_at: float | None = None
    #: the application's hook decided, and decides again when it expires
    by_hook: bool = False
    #: JSON for the client itself, with the answer to its connect
    data: bytes = b""
    #: further rights
    capabilities: tuple[Capability, ...] = ()

    @property
    def channels(self) -> tuple[str, ...]:
        return tuple(self.subs)


#: A peer that brings nothing, where that is allowed.
ANONYMOUS = Identity()


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a peer brings. At most one kind counts: a token, then a password, then a certificate."""

    token: str = field(default="", repr=False)
    user: str = ""
    password: str | None = field(default=None, repr=False)
    #: the user that a verified client certificate names
    certificate: str = ""

    def __bool__(self) -> bool:
        return bool(self.token or self.password is not None or self.certificate)


NO_CREDENTIALS = Credentials()


@dataclass(slots=True)
class Admission:
    """A request to be let in. `protocol` is how the peer is connected, as `Client.protocol`.

    `client`, `headers` and `data` are for the application's hook, as in `longconn.core.hooks.HookRequest`.
    """

    protocol: str
    host: str
    address: str
    credentials: Credentials = NO_CREDENTIALS
    client: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    data: bytes = b""
