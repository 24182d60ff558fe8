"""GET /openapi.json describes exactly the paths that are served."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from longconn import __version__
from longconn.protocols.http import openapi
from longconn.protocols.http.routes import Route, Routes
from longconn.server_api.http import NAMES
from longconn.service.embedding import LiveResource
from tests.protocols.http.kit import HTTPTestCase

API = ("X-API-Key: k", "Content-Type: application/json")


def every(value: Any) -> Iterator[dict[str, Any]]:
    """All objects in a document, the outermost first."""
    if isinstance(value, dict):
        yield value
        for each in value.values():
            yield from every(each)
    elif isinstance(value, list):
        for each in value:
            yield from every(each)


class OpenAPITests(HTTPTestCase):
    def setUp(self) -> None:
        self.start(api_key="k")
        self.routes = LiveResource(self.hub).routes.table
        self.document = self.request("GET /openapi.json").json

    def test_every_route_is_described_and_every_description_routed(self) -> None:
        described = json.loads(Path(openapi.__file__).with_name("openapi.json").read_bytes())["paths"]
        self.assertEqual(set(described), set(self.routes))
        for path, route in self.routes.items():
            methods = {name for name in ("get", "post") if getattr(route, name) is not None}
            self.assertEqual(set(described[path]), methods, path)
        methods_of_the_api = {f"/api/{name}" for name in NAMES}
        self.assertEqual({path for path in described if path.startswith("/api/")}, methods_of_the_api)

    def test_it_describes_only_served_paths(self) -> None:
        self.assertEqual(set(self.document["paths"]), set(self.routes))
        self.start()
        paths = set(self.request("GET /openapi.json").json["paths"])
        self.assertEqual(paths, {path for path in self.routes if not path.startswith(("/api/", "/metrics"))})

    def test_described_paths_are_served(self) -> None:
        for path, operations in self.document["paths"].items():
            for method in ("GET", "POST", "DELETE"):
                line = f"{method} {path.replace('{channel}', 'lobby').replace('{file}', 'main.js')}"
                connection = self.connect()
                connection.ask(line)
                answer = connection.answer()
                self.assertNotEqual(answer.status, 404, line)
                self.assertEqual(answer.status == 405, method.lower() not in operations, line)

    def test_parameters_of_a_path_are_described_once(self) -> None:
        for path, operations in self.document["paths"].items():
            for operation in operations.values():
                described = [(each["name"], each["in"]) for each in operation.get("parameters", ())]
                self.assertEqual(len(set(described)), len(described), path)
                names = {name for name, place in described if place == "path"}
                self.assertEqual(names, set(re.findall(r"\{(\w+)\}", path)), path)
                self.assertEqual("key" in str(operation.get("security")), path.startswith(("/api/", "/metrics")), path)

    def test_all_references_resolve_and_all_schemas_are_used(self) -> None:
        used = set()
        for each in every(self.document):
            if "$ref" in each:
                start, *names = each["$ref"].split("/")
                self.assertEqual(start, "#")
                found = self.document
                for name in names:
                    found = found[name]
                used.add(names[-1])
        self.assertEqual(used, {*self.document["components"]["schemas"], *self.document["components"]["responses"]})

    def test_every_operation_says_what_it_does_and_answers(self) -> None:
        self.assertEqual((self.document["openapi"], self.document["info"]["version"]), ("3.1.0", __version__))
        for path, operations in self.document["paths"].items():
            for operation in operations.values():
                self.assertTrue(operation["summary"], path)
                self.assertTrue(any(re.fullmatch("[1-3]..", each) for each in operation["responses"]), path)
                self.assertIn("default", operation["responses"])

    def test_its_bounds_are_those_of_the_server(self) -> None:
        schemas = self.document["components"]["schemas"]
        for name in ("lobby", "ü", "a/b", "x" * 255, "x" * 256, "", "a b", "a\n", "\x00", "\x9f", "\u2003"):
            schema = schemas["Channel"]
            fits = schema["minLength"] <= len(name) <= schema["maxLength"] and re.fullmatch(schema["pattern"], name)
            answer = self.request("POST /api/history", *API, body=json.dumps({"channel": name}).encode())
            self.assertEqual("result" in answer.json, bool(fits), repr(name))
        for name in ("mia", "x" * 32, "x" * 33):
            line = f"POST /channels/lobby?name={name}"
            fits = schemas["Name"]["minLength"] <= len(name) <= schemas["Name"]["maxLength"]
            self.assertEqual(self.request(line, body=b"hi").status, 200 if fits else 400, name)
        for since in (self.position(), "x:1", "1", "x:", ":1", "x:-1", "x" * 65 + ":1", "x:" + "1" * 19):
            fits = re.fullmatch(schemas["Since"]["pattern"], since)
            self.assertEqual(self.request(f"GET /channels/lobby?since={since}").status == 400, not fits, since)
        content = self.document["paths"]["/api/history"]["post"]["requestBody"]["content"]["application/json"]
        least = content["schema"]["properties"]["limit"]["minimum"]
        for limit in (least, least - 1):
            body = json.dumps({"channel": "lobby", "limit": limit}).encode()
            answer = self.request("POST /api/history", *API, body=body)
            self.assertEqual("result" in answer.json, limit >= least, limit)

    def test_it_can_be_opened_by_a_link_of_any_site(self) -> None:
        answer = self.request("GET /openapi.json", "Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate")
        self.assertEqual((answer.status, answer.headers["content-type"]), (200, "application/json"))


class RouteTests(HTTPTestCase):
    def test_parameters_are_segments(self) -> None:
        one, two, three = Route(None), Route(None), Route(None)
        routes = Routes({"/a/{x}": one, "/a/b": two, "/{x}/c/{y}": three})
        for path, found in (
            (["a", "1"], (one, ["1"])), (["a", "b"], (two, [])), (["q", "c", ""], (three, ["q", ""])),
            (["a"], None), (["a", "1", "2"], None), ([], None), (["a", "{x}"], (one, ["{x}"])),
        ):  # fmt: skip
            self.assertEqual(routes.find(path), found)
