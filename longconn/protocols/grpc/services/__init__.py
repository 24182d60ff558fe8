"""The methods that are served over gRPC, by path.

channels    LongConn.Publish, Presence, History    greeter      the tutorials' Greeter
subscribe   LongConn.Subscribe                     health       grpc.health.v1
connect     LongConn.Connect                       reflection   grpc.reflection.v1 and v1alpha
"""

from __future__ import annotations

from collections.abc import Sequence

from google.protobuf.descriptor import FileDescriptor

from longconn.core.hub import Hub
from longconn.protocols.grpc.call import Services
from longconn.protocols.grpc.services.callers import counted, for_users
from longconn.protocols.grpc.services.channels import history, presence, publish
from longconn.protocols.grpc.services.connect import connect
from longconn.protocols.grpc.services.greeter import say_hello
from longconn.protocols.grpc.services.health import Health
from longconn.protocols.grpc.services.reflection import Reflection
from longconn.protocols.grpc.services.standard import with_files
from longconn.protocols.grpc.services.subscribe import subscribe


def services(hub: Hub, files: Sequence[FileDescriptor] = ()) -> Services:
    """Return all of longconn's methods. Health and reflection also cover methods that are added to the result.

    Methods that are added have no rate; the others have that of the caller's address. `files` describe the added ones,
    for reflection.
    """
    found = Services(
        {
            "/longconn.v1.LongConn/Publish": publish,
            "/longconn.v1.LongConn/Subscribe": subscribe,
            "/longconn.v1.LongConn/Connect": connect,
            "/longconn.v1.LongConn/Presence": presence,
            "/longconn.v1.LongConn/History": history,
            "/helloworld.Greeter/SayHello": for_users(say_hello),
            "/helloworld.HelloService/SayHello": for_users(say_hello),
            "/HelloService/SayHello": for_users(say_hello),
        }
    )
    health = Health(hub, found)
    found["/grpc.health.v1.Health/Check"] = health.check
    found["/grpc.health.v1.Health/Watch"] = health.watch
    pool = with_files(files)
    for version in ("v1", "v1alpha"):
        reflection = Reflection(version, found, pool)
        found[f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"] = reflection.info
    for path, handler in found.items():
        found[path] = counted(handler)
    return found
