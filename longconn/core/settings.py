"""The settings of a hub and its protocols: one frozen object, and the one list of all options.

The flags of the command line (`longconn.config.flags`), the variables of the environment and the keys of the TOML file
(`longconn.config.file`), and the table of `docs/reference/options.md` are made from these fields.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from longconn.core.namespaces import Namespaces, option

KIB = 1024
MIB = 1024 * 1024
#: The levels of lines of the log, the least serious first.
LOG_LEVELS = ("debug", "info", "warning", "error")
#: What a webhook may be told of.
WEBHOOK_EVENTS = ("client_connected", "client_disconnected", "channel_occupied", "channel_vacated")


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of a hub and its protocols. 0 turns a limit off unless its help says otherwise.

    Times are seconds, sizes bytes, rates per second.
    """

    # The chat.
    default_channel: str = option("lobby", "the channel that a chat client is in at first", form="channel")
    locale: str = option("en", "the language of chat texts", choices=("en", "zh"))
    empty_line: str = option("leave", "what an empty chat line does", choices=("leave", "ignore"))
    names: str = option(
        "auto",
        "how a client without a name of its own is called: HOST:PORT, or guest-N; auto: guest-N as soon as a client "
        "may come from another machine",
        choices=("auto", "address", "guest"),
    )

    # Beyond this process.
    broker: tuple[str, ...] = option(
        (),
        "a Redis server that keeps the channels, as redis://HOST:PORT: several processes share them; with a further "
        "one each has a part of the channels; without one they are in this process",
        form="secret",
    )

    # Which pages and hosts may connect.
    allowed_origin: tuple[str, ...] = option(
        (),
        "an Origin whose pages may connect, as https://example.org; 'null' for pages opened from a file; '*' for any",
    )
    allowed_host: tuple[str, ...] = option(
        (), "a Host that is served beside localhost, IP addresses and names of the local network; '*' for any"
    )

    trusted_proxy: tuple[str, ...] = option(
        (), "a proxy in front, whose word on its client's address counts: an address, a network, or unix"
    )

    # TLS on the shared port.
    tls_cert: tuple[str, ...] = option(
        (), "a certificate, with its chain, in PEM: the shared port takes TLS, too; a further one for other names"
    )
    tls_key: tuple[str, ...] = option((), "the file of its key, in PEM; as many as there are certificates")
    tls_only: bool = option(False, "whether the shared port refuses clients without TLS")
    tls_client_ca: str = option(
        "",
        "a file of authorities, in PEM: a client needs a certificate of one of them, which names its user",
        form="text",
    )
    hsts: float = option(
        0, "for how long browsers are to use https alone (Strict-Transport-Security); 0: not said", "seconds"
    )

    # Users.
    anonymous: str = option(
        "auto",
        "what a client without credentials may do: everything, only read, or nothing; auto: nothing where credentials "
        "can be checked, else everything",
        choices=("auto", "yes", "read", "no"),
    )
    auth: tuple[str, ...] = option(
        (),
        "checks passwords: a checker of Twisted, as file:PATH or memory:NAME:PASSWORD; see --help-auth",
        form="secret",
    )

    # Tokens (RFC 7519). The keys pin the algorithms.
    token_hmac_secret_key: str = option("", "the secret of tokens signed by HS256, HS384, HS512", form="secret")
    token_hmac_previous_secret_key: str = option(
        "", "the secret before that, while tokens signed by it are still in use", form="secret"
    )
    token_rsa_public_key: str = option(
        "", "the key of tokens signed by RS256, RS384, RS512: PEM, or the name of its file", form="text"
    )
    token_ecdsa_public_key: str = option(
        "", "the key of tokens signed by ES256, ES384, ES512: PEM, or the name of its file", form="text"
    )
    token_eddsa_public_key: str = option(
        "", "the key of tokens signed by EdDSA: PEM, or the name of its file", form="text"
    )
    jwks: str = option("", "further public keys: a JWK set (RFC 7517), as a URL or a file", form="text")
    token_leeway: float = option(0, "by which clocks may differ when a token's times are checked", "seconds")
    token_cookie: str = option("", "the cookie in which a browser sends its token", form="text")
    token_audience: str = option("", "what a token's `aud` must contain", form="text")
    token_issuer: str = option("", "what a token's `iss` must be", form="text")

    # The application's hooks: POSTs in the form of Centrifugo's proxies.
    hook_connect: str = option("", "the URL that decides who may connect", form="text")
    hook_refresh: str = option("", "the URL that decides whether a connection goes on when it expires", form="text")
    hook_subscribe: str = option("", "the URL that decides who may subscribe, where a channel wants that", form="text")
    hook_publish: str = option("", "the URL that decides who may publish, where a channel wants that", form="text")
    hook_sub_refresh: str = option("", "the URL that decides whether a subscription goes on", form="text")
    hook_rpc: str = option("", "the URL that answers calls of methods", form="text")
    hook_header: tuple[str, ...] = option((), "a header of a client's request that hooks get, as Cookie")
    hook_timeout: float = option(1, "until a hook must have answered", "seconds", low=0.01)
    hook_requests: int = option(100, "requests of hooks that are under way at once", "requests", low=1)

    # Webhooks: POSTs that tell the application what happened.
    webhook: str = option("", "the URL that is told of clients and channels", form="text")
    webhook_secret: str = option("", "the secret that signs what it is told", form="secret")
    webhook_event: tuple[str, ...] = option((), f"an event to tell of: {', '.join(WEBHOOK_EVENTS)}; without one all")
    user_personal_channel: bool = option(
        False, "subscribe a Centrifugo client with a user to that user's own channel, #USER"
    )
    user_personal_channel_namespace: str = option(
        "", "the namespace of these channels: NAMESPACE:#USER", form="namespace"
    )

    # The server API.
    api_key: str = option("", "the key of the server API, POST /api/…; without one it is off", form="secret")
    api_previous_key: str = option("", "the key before that, while programs still use it", form="secret")
    admin_user: tuple[str, ...] = option(
        (), "a user that may use the server API and the admin page, by a password or a token", form="text"
    )

    # Limits of number and size.
    max_connections: int = option(
        20_000, "clients in all; lowered to what the open-file limit leaves room for", "clients"
    )
    max_connections_per_ip: int = option(0, "connections of one address, or of one IPv6 /64", "connections")
    max_message: int = option(64 * KIB, "one message or chat line", "bytes", low=1)
    publish_rate: float = option(100, "publications a second of one client", "a second")
    publish_burst: int = option(1_000, "publications at once before the rate applies", "publications", low=1)
    publish_bytes: int = option(
        256 * KIB, "published bytes a second of one client; twice that at once", "bytes a second"
    )
    max_body: int = option(1 * MIB, "the body of an HTTP request", "bytes", low=1)
    max_bulk_body: int = option(8 * MIB, "the body of an application/x-ndjson request", "bytes", low=1)
    max_body_total: int = option(64 * MIB, "the bodies of all HTTP requests under way", "bytes", low=1)
    max_head: int = option(16 * KIB, "request line and headers of an HTTP request", "bytes", low=512)
    max_subscriptions: int = option(128, "channels of one client", "channels")
    max_channels: int = option(100_000, "channels in all", "channels")
    channel_rate: float = option(10, "new channels a second from one address, 200 at once", "a second")

    # Limits of time.
    head_timeout: float = option(10, "the whole head of an HTTP request", "seconds")
    http_idle_timeout: float = option(75, "an HTTP connection between two requests", "seconds")
    idle_timeout: float = option(3_600, "a chat or WebSocket connection without a byte either way", "seconds")
    ping_interval: float = option(25, "between two pings to a WebSocket client, two heartbeats of a stream", "seconds")
    pong_timeout: float = option(10, "until a ping must be answered", "seconds")
    handshake_timeout: float = option(10, "a TLS or WebSocket handshake, the first line of a connection", "seconds")
    write_timeout: float = option(30, "without progress while something waits to be sent", "seconds")

    # Queues and history.
    send_queue: int = option(1 * MIB, "what may wait for one client", "bytes", low=1)
    send_queue_total: int = option(
        256 * MIB, "what may wait for all clients; the largest is disconnected first", "bytes"
    )
    history_size: int = option(1_000, "publications kept in a channel; 0 keeps none", "publications")
    history_ttl: float = option(43_200, "how long a publication is kept; 0 keeps none", "seconds")
    history_bytes: int = option(1 * MIB, "bytes kept in a channel; 0 keeps none", "bytes")
    history_total: int = option(256 * MIB, "bytes kept in all channels, the oldest evicted; 0 keeps none", "bytes")

    # The log.
    log_format: str = option(
        "text", "how lines of the log are written: for people, or one JSON object each", choices=("text", "json")
    )
    log_level: str = option("info", "the least serious lines that are logged", choices=LOG_LEVELS)
    log_clients: bool = option(True, "whether a line is logged for each client that comes, and that leaves")

    # Shutdown.
    shutdown_delay: float = option(0, "at a shutdown: not ready, but serving", "seconds")
    shutdown_timeout: float = option(25, "then: until the last client is closed", "seconds")

    #: the options of channels: tables of the file, without flags
    namespaces: Namespaces = field(default_factory=Namespaces)

    @property
    def has_token_keys(self) -> bool:
        """Whether there is a key that verifies tokens."""
        return any(
            (self.token_hmac_secret_key, self.token_rsa_public_key, self.token_ecdsa_public_key,
             self.token_eddsa_public_key, self.jwks)
        )  # fmt: skip

    @property
    def has_users(self) -> bool:
        """Whether a client may have a user."""
        return self.has_token_keys or bool(self.auth or self.hook_connect or self.tls_client_ca)

    def effective_namespaces(self) -> Namespaces:
        """`namespaces`, with the values of these settings in place of the options that they leave open."""
        filled = self.namespaces.filled(
            history_size=self.history_size,
            history_ttl=self.history_ttl,
            allow_user_limited_channels=self.has_users,
        )
        return filled.changed(allow_publish_for_anonymous=False) if self.anonymous == "read" else filled


#: The fields that are options, by name, in order.
OPTIONS = {each.name: each for each in fields(Settings) if each.metadata}

#: New channels that one address may make at once, before `channel_rate` applies.
CHANNEL_BURST = 200
