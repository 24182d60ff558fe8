"""A gRPC service of a program, beside longconn's on the same port: python grpc_service.py 127.0.0.1:9999"""

import json
import sys
from typing import Any

import grpc
from twisted.internet import reactor
from twisted.python import log

from longconn import Data, GrpcCall, Info, LongConnService, Services, StatusCode, StatusError

# A program may as well import the module that `protoc` has made of the file.
messages: Any = grpc.protos("shop.proto")
PRICES = {"tea": 3, "cake": 5}


def receipt(call: GrpcCall, request: bytes) -> bytes:
    """Sell, and tell all that are in the channel `shop`, whatever they are connected with."""
    order = messages.Order.FromString(request)
    if order.item not in PRICES:
        raise StatusError(StatusCode.NOT_FOUND, f"there is no {order.item}")
    sold = Data.of_json(json.dumps({"item": order.item, "count": order.count}))
    call.hub.publish("shop", sold, Info("shop"), lambda result: None)
    answer: bytes = messages.Receipt(price=order.count * PRICES[order.item]).SerializeToString()
    return answer


async def sell(call: GrpcCall) -> None:
    call.write(receipt(call, await call.read_one()))


async def sell_many(call: GrpcCall) -> None:
    while (request := await call.read()) is not None:
        call.write(receipt(call, request))
        await call.drained()


log.startLogging(sys.stdout)
service = LongConnService(
    reactor,
    port=sys.argv[1:],
    grpc_services=Services({"/shop.Shop/Sell": sell, "/shop.Shop/SellMany": sell_many}),
    grpc_files=[messages.DESCRIPTOR],
)
service.startService()
reactor.run()  # type: ignore[attr-defined]
