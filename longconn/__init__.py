"""One process, one set of channels, every kind of long connection.

The public names, for Twisted programs that embed the server. Each name is imported at its first use, so that
`import longconn` brings in neither a reactor nor Autobahn.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

__all__ = [
    "ChatFactory",
    "ChatProtocol",
    "Data",
    "GrpcCall",
    "GrpcFactory",
    "HookDisconnectError",
    "HookRefusalError",
    "HookReply",
    "HookRequest",
    "Hooks",
    "Hub",
    "Info",
    "LiveResource",
    "LiveSite",
    "LocalMember",
    "LongConnService",
    "ServerAPI",
    "Services",
    "Settings",
    "SharedPortFactory",
    "StatusCode",
    "StatusError",
    "WebSocketFactory",
    "__version__",
    "program_hooks",
]

if TYPE_CHECKING:
    from longconn.auth.program_hooks import program_hooks
    from longconn.core.hooks import HookDisconnectError, HookRefusalError, HookReply, HookRequest, Hooks
    from longconn.core.hub import Hub
    from longconn.core.publication import Data, Info
    from longconn.core.settings import Settings
    from longconn.protocols.chat.tcp import ChatProtocol
    from longconn.protocols.grpc.call import GrpcCall, Services
    from longconn.protocols.grpc.factory import GrpcFactory
    from longconn.server_api.operations import ServerAPI
    from longconn.service.embedding import ChatFactory, LiveResource, LiveSite, SharedPortFactory, WebSocketFactory
    from longconn.service.member import LocalMember
    from longconn.service.service import LongConnService
    from longconn.wire.grpc_status import StatusCode, StatusError

_MODULES = {
    "program_hooks": "longconn.auth.program_hooks",
    "Hooks": "longconn.core.hooks",
    "HookRequest": "longconn.core.hooks",
    "HookReply": "longconn.core.hooks",
    "HookRefusalError": "longconn.core.hooks",
    "HookDisconnectError": "longconn.core.hooks",
    "ChatFactory": "longconn.service.embedding",
    "ChatProtocol": "longconn.protocols.chat.tcp",
    "Data": "longconn.core.publication",
    "GrpcCall": "longconn.protocols.grpc.call",
    "GrpcFactory": "longconn.protocols.grpc.factory",
    "Hub": "longconn.core.hub",
    "Info": "longconn.core.publication",
    "LiveResource": "longconn.service.embedding",
    "LiveSite": "longconn.service.embedding",
    "LocalMember": "longconn.service.member",
    "LongConnService": "longconn.service.service",
    "ServerAPI": "longconn.server_api.operations",
    "Services": "longconn.protocols.grpc.call",
    "Settings": "longconn.core.settings",
    "SharedPortFactory": "longconn.service.embedding",
    "StatusCode": "longconn.wire.grpc_status",
    "StatusError": "longconn.wire.grpc_status",
    "WebSocketFactory": "longconn.service.embedding",
}


def __getattr__(name: str) -> object:
    module = _MODULES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value  # the next access does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
