"""Which client has which name: chosen ones, those of users, and those that the server makes."""

from __future__ import annotations

from collections.abc import Callable
from hmac import compare_digest

from longconn.core.client import Client
from longconn.core.errors import NAME_TAKEN, CommandError
from longconn.core.identity import Identity
from longconn.core.names import check_name, fold, name_in, user_name
from longconn.core.settings import Settings


class ClientNames:
    """The names of one hub's clients. `call(client, name)` gives a client another name, and tells its channels.

    A name has one owner. Clients that have it by their identity may share it: they are one user, or the application
    itself calls several users so.
    """

    def __init__(self, settings: Settings, call: Callable[[Client, str], None]) -> None:
        self._names = settings.names
        self._call = call
        #: whether a client may come from another machine; the owner of the ports knows it first
        self.is_public = bool(settings.trusted_proxy)
        #: the clients that have chosen a name, or have one by their identity, by the folded name
        self.owners: dict[str, Client] = {}
        # Further clients of the same name.
        self._sharers: dict[str, set[Client]] = {}
        self._assigned = 0

    def assign(self, host: str, address: str) -> str:
        """The name of a caller that has no other: its address if only this machine reaches the server, or guest-N."""
        if not self.is_public:
            self.is_public = not (host in ("", "::1") or host.startswith("127."))
        if self._names == "address" or (self._names == "auto" and not self.is_public):
            return address
        self._assigned += 1
        return f"guest-{self._assigned}"

    # Chosen names.

    def check(self, name: str, user: str, resume: str) -> Client | None:
        """The owner of `name`, if a client of `user`, or with the secret `resume`, may have it; None if it is free.

        Raises CommandError(BAD_NAME) or (NAME_TAKEN).
        """
        owner = self.owners.get(fold(check_name(name)))
        if owner is None or not owner.live:
            return None
        is_same_user = bool(owner.user) and owner.user == user
        is_same_session = bool(owner.resume) and compare_digest(owner.resume.encode(), resume.encode())
        if not (is_same_user or is_same_session):
            raise CommandError(NAME_TAKEN, name=name)
        return owner

    def claim(self, name: str, client: Client, user: str) -> None:
        """Reserve `name` for `client`, which is or will be of `user`; the caller gives it to the client.

        A client of the same user, or with the same secret, loses it: after a change of network that is most often a
        connection that is dead, and not noticed yet. Raises CommandError(BAD_NAME) or (NAME_TAKEN).
        """
        key = fold(check_name(name))
        if fold(client.name) != key or not self._has_one(client):
            owner = self.check(name, user, client.resume)
            if owner is not None and not (owner.user == user and fold(self.of_identity(owner.identity, owner)) == key):
                self._call(owner, self._default(owner))
            self._hold(key, client)
        client.has_chosen_name = True

    def let_go(self, client: Client) -> None:
        """The client does not have its name any more."""
        key = fold(client.name)
        sharers = self._sharers.get(key)
        if sharers is not None:
            sharers.discard(client)
        if self.owners.get(key) is client:
            del self.owners[key]
            if sharers:
                self.owners[key] = sharers.pop()
        if sharers is not None and not sharers:
            del self._sharers[key]

    def _hold(self, key: str, client: Client) -> None:
        """Let `client` have the name `key`, alone or beside its owner, in place of its old one."""
        owner = self.owners.get(key)
        if owner is client or client in self._sharers.get(key, ()):
            return
        self.let_go(client)
        if owner is not None and owner.live:
            self._sharers.setdefault(key, set()).add(client)
        else:
            self.owners[key] = client

    # Names by identity.

    def of_identity(self, identity: Identity, client: Client | None = None) -> str:
        """The name that an identity gives: the application's, or the user's if it is free for `client`. Else empty."""
        given = name_in(identity.info)
        if given or not identity.user:
            return given
        name = user_name(identity.user)
        owner = self.owners.get(fold(name))
        is_free = owner is None or owner is client or not owner.live or owner.user == identity.user
        return name if is_free else ""

    def use_identity(self, client: Client) -> None:
        """Call a client by its identity, unless it has chosen a name."""
        if client.live and not client.has_chosen_name:
            name = self.of_identity(client.identity, client)
            if not name and self._has_one(client):
                self._call(client, self._default(client))
            elif name and name != client.name:
                key = fold(name)
                owner = self.owners.get(key)
                if owner is not None and owner.live and not owner.user:
                    self._call(owner, self._default(owner))  # the application goes before a visitor who took the name
                self._hold(key, client)
                self._call(client, name)

    def _has_one(self, client: Client) -> bool:
        key = fold(client.name)
        return self.owners.get(key) is client or client in self._sharers.get(key, ())

    def _default(self, client: Client) -> str:
        """The name of a client that loses the one that it has chosen."""
        self.let_go(client)
        client.has_chosen_name = False
        name = self.of_identity(client.identity, client)
        if not name:
            return self.assign(client.host, client.address)
        self._hold(fold(name), client)
        return name
