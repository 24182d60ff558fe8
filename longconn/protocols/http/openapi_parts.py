"""What descriptions are made of."""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

JSON = "application/json"
STRING: Json = {"type": "string"}
INTEGER: Json = {"type": "integer"}
NUMBER: Json = {"type": "number"}
BOOLEAN: Json = {"type": "boolean"}


def ref(name: str) -> Json:
    return {"$ref": f"#/components/schemas/{name}"}


def fields(required: tuple[str, ...], **members: Json) -> Json:
    """An object's schema."""
    schema: Json = {"type": "object", "properties": members}
    return schema | ({"required": list(required)} if required else {})


def listed(items: Json) -> Json:
    return {"type": "array", "items": items}


def mapped(values: Json) -> Json:
    """An object with any names."""
    return {"type": "object", "additionalProperties": values}


def one(schema: Json) -> Json:
    """Content of a single type: JSON."""
    return {JSON: {"schema": schema}}


def answer(description: str, content: Json | None = None) -> Json:
    return {"description": description} | ({} if content is None else {"content": content})


def body(content: Json) -> Json:
    return {"required": True, "content": content}


def parameter(name: str, place: str, description: str, required: bool = False, schema: Json = STRING) -> Json:
    return {
        "name": name,
        "in": place,
        "description": description,
        "required": required or place == "path",
        "schema": schema,
    }


def operation(tag: str, summary: str, responses: Json, *parameters: Json, body: Json | None = None) -> Json:
    found: Json = {"tags": [tag], "summary": summary}
    if parameters:
        found["parameters"] = list(parameters)
    if body is not None:
        found["requestBody"] = body
    found["responses"] = responses | {"default": {"$ref": "#/components/responses/Failure"}}
    return found
