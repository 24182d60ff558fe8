"""What protoc made is what it makes now of the .proto files, by the commands of CONTRIBUTING.md."""

import ast
import re
import shlex
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from twisted.trial.unittest import SkipTest, SynchronousTestCase

import longconn

ROOT = Path(longconn.__file__).parents[1]
MODULES = (Path("longconn/v1/longconn_pb2.py"), Path("longconn/protocols/centrifugo/client_pb2.py"))
DESCRIPTORS = Path("longconn/protos/services.binpb")
OWN = "longconn/v1/longconn.proto"

_COMMAND = re.compile(r"^python -m grpc_tools\.protoc (.+)$", re.MULTILINE)
_OUT = re.compile(r"^--(python_out|pyi_out|descriptor_set_out)=(.*)$")


def version(module: str) -> str:
    match = re.search(r"^# Protobuf Python Version: (\S+)$", module, re.MULTILINE)
    assert match is not None
    return match[1]


def descriptor(module: str) -> FileDescriptorProto:
    """The file that a module of protoc's describes."""
    match = re.search(r"AddSerializedFile\((b'.*')\)$", module, re.MULTILINE)
    assert match is not None
    return FileDescriptorProto.FromString(ast.literal_eval(match[1]))


class ProtoTests(SynchronousTestCase):
    def setUp(self) -> None:
        try:
            from grpc_tools import protoc
        except ImportError:
            raise SkipTest("needs grpcio-tools") from None
        self.made = Path(self.mktemp()).resolve()
        (self.made / DESCRIPTORS.parent).mkdir(parents=True)
        self.commands = _COMMAND.findall((ROOT / "CONTRIBUTING.md").read_text())
        self.assertEqual(len(self.commands), len(MODULES) + 1)
        own = Path(protoc.__file__).parent / "_proto"
        for each in self.commands:
            arguments = [self._moved(word) for word in shlex.split(each)]
            self.assertEqual(protoc.main(["protoc", f"--proto_path={own}", *arguments]), 0)

    def _moved(self, word: str) -> str:
        """A word of a command that is run in the folder of the project: what it makes goes to another."""
        match = _OUT.match(word)
        if match is not None:
            return f"--{match[1]}={self.made / match[2]}"
        if word.startswith("--proto_path="):
            return f"--proto_path={ROOT / word.partition('=')[2]}"
        return str(ROOT / word) if word.startswith("longconn/") else word

    def test_the_modules(self) -> None:
        for module in MODULES:
            there, now = (ROOT / module).read_text(), (self.made / module).read_text()
            self.assertEqual(descriptor(there), descriptor(now))
            if version(there) == version(now):  # each version has a text of its own
                self.assertEqual(there, now)
                stubs = module.with_suffix(".pyi")
                self.assertEqual((ROOT / stubs).read_text(), (self.made / stubs).read_text())

    def test_the_descriptors(self) -> None:
        there, now = [FileDescriptorSet.FromString((each / DESCRIPTORS).read_bytes()) for each in (ROOT, self.made)]
        self.assertEqual(there, now)

    def test_all_files_are_in_them(self) -> None:
        folder = ROOT / DESCRIPTORS.parent
        named = {each.name for each in FileDescriptorSet.FromString((ROOT / DESCRIPTORS).read_bytes()).file}
        self.assertEqual(named, {OWN, *(str(each.relative_to(folder)) for each in folder.rglob("*.proto"))})

    def test_the_lowest_version_of_the_library_is_that_of_the_module(self) -> None:
        (wanted,) = {version((ROOT / module).read_text()) for module in MODULES}
        self.assertIn(f"protobuf >= {wanted}\n", (ROOT / "setup.cfg").read_text())
