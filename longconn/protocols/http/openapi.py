"""GET /openapi.json: a description of the paths in OpenAPI 3.1 (spec.openapis.org/oas/v3.1.0).

It is written down in `openapi.json` beside this file, without the version. Tests compare it with the routes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import longconn

# Read when this module is loaded: at the time of the first request the process may be in a chroot.
_ALL: dict[str, Any] = json.loads(Path(__file__).with_name("openapi.json").read_bytes())


def document(paths: Iterable[str]) -> dict[str, Any]:
    """The description of a server that serves `paths`, as `/channels/{channel}`. Others are left out."""
    served = set(paths)
    described = {path: item for path, item in _ALL["paths"].items() if path in served}
    return _ALL | {"info": _ALL["info"] | {"version": longconn.__version__}, "paths": described}
