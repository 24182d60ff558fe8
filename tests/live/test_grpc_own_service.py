"""A gRPC service of a program beside longconn's, as the documentation shows it, with grpcio's client."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from twisted.trial.unittest import SynchronousTestCase

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"


class OwnServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        program = subprocess.Popen(
            [sys.executable, "-u", EXAMPLES / "grpc_service.py", "127.0.0.1:0"], stdout=subprocess.PIPE, text=True
        )
        self.addCleanup(program.wait)
        self.addCleanup(program.terminate)
        assert program.stdout is not None
        self.addCleanup(program.stdout.close)
        for line in program.stdout:
            if "listening on 127.0.0.1:" in line:
                self.target = "127.0.0.1:" + line.partition("listening on 127.0.0.1:")[2].split()[0].rstrip(",;:")
                break
        self.patch(sys, "path", [*sys.path, str(EXAMPLES)])
        self.messages: Any
        self.messages, services = grpc.protos_and_services("shop.proto")  # type: ignore[attr-defined]
        self.channel = grpc.insecure_channel(self.target)
        self.addCleanup(self.channel.close)
        self.shop = services.ShopStub(self.channel)

    def test_calls_errors_and_reflection(self) -> None:
        order = self.messages.Order
        self.assertEqual(self.shop.Sell(order(item="tea", count=2), timeout=20).price, 6)
        orders = iter([order(item="tea", count=1), order(item="cake", count=1)])
        self.assertEqual([each.price for each in self.shop.SellMany(orders, timeout=20)], [3, 5])
        error = self.assertRaises(grpc.RpcError, self.shop.Sell, order(item="pie", count=1), timeout=20)
        self.assertEqual((error.code(), error.details()), (grpc.StatusCode.NOT_FOUND, "there is no pie"))
        _, services = grpc.protos_and_services("longconn/v1/longconn.proto")  # type: ignore[attr-defined]
        longconn: Any = grpc.protos("longconn/v1/longconn.proto")  # type: ignore[attr-defined]
        kept = services.LongConnStub(self.channel).History(longconn.HistoryRequest(channel="shop"), timeout=20)
        self.assertEqual(kept.publications[0].data, '{"item":"tea","count":2}')
        database = ProtoReflectionDescriptorDatabase(self.channel)
        self.assertIn("shop.Shop", database.get_services())
        self.assertIn("longconn.v1.LongConn", database.get_services())
        found = DescriptorPool(database).FindServiceByName("shop.Shop")
        self.assertEqual([each.name for each in found.methods], ["Sell", "SellMany"])
