"""Messages of the services that are not ours, in a descriptor pool of their own.

The default pool has one place for a name in the whole process, and whoever embeds us may use grpcio's
own modules for health and reflection, which want it. The descriptors are in `longconn/protos`; those of our own
service are there for reflection, since protoc leaves the JSON names out of what it puts into a module.
"""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass


def _load() -> DescriptorPool:
    pool = DescriptorPool()
    data = files("longconn").joinpath("protos/services.binpb").read_bytes()
    for each in FileDescriptorSet.FromString(data).file:
        pool.AddSerializedFile(each.SerializeToString())
    return pool


#: the descriptors of all that is served
POOL = _load()


def message(name: str) -> Any:
    """The class of messages of a full name."""
    return GetMessageClass(POOL.FindMessageTypeByName(name))
