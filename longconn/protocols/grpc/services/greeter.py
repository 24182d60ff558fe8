"""helloworld.Greeter, the service of gRPC's tutorials."""

from __future__ import annotations

from longconn.protocols.grpc.call import GrpcCall
from longconn.protocols.grpc.services.messages import parse
from longconn.protocols.grpc.services.standard import message

_HelloRequest = message("helloworld.HelloRequest")
_Reply = message("helloworld.HelloReply")


async def say_hello(call: GrpcCall) -> None:
    """Answer `Hello NAME!`."""
    request = parse(_HelloRequest, await call.read_one())
    call.write(_Reply(message=f"Hello {request.name}!").SerializeToString())
