"""Messages of the standard services (greeter, health, reflection), in a descriptor pool of their own.

The default pool has each name once in a process, and a program that embeds longconn may use grpcio's own modules for
health and reflection, which register theirs there. The descriptors are in `longconn/protos`. Those of longconn's
service are in the pool too, for reflection: protoc leaves the JSON names out of the descriptors in generated modules.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass


def _load() -> DescriptorPool:
    pool = DescriptorPool()
    data = files("longconn").joinpath("protos/services.binpb").read_bytes()
    for each in FileDescriptorSet.FromString(data).file:
        pool.AddSerializedFile(each.SerializeToString())
    return pool


#: the descriptors of all services
POOL = _load()


def with_files(files: Sequence[FileDescriptor]) -> DescriptorPool:
    """Return a pool with the descriptors of all services, and with `files` and their imports.

    A file is left out if the pool has one of its name, as it has those of the standard services.
    """
    if not files:
        return POOL
    pool = _load()
    for each in files:
        _add(pool, each)
    return pool


def _add(pool: DescriptorPool, file: FileDescriptor) -> None:
    try:
        pool.FindFileByName(file.name)
    except KeyError:
        for each in file.dependencies:
            _add(pool, each)
        pool.AddSerializedFile(file.serialized_pb)


def message(name: str) -> Any:
    """Return the class of the message with this full name."""
    return GetMessageClass(POOL.FindMessageTypeByName(name))
