"""The load generator of ``load/``: compiled once for each state of its source, run once for each measurement."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

from bench.install import CACHE
from bench.process import HOST, LOAD_CORE, ROOT, BenchError, on_core

SOURCES = ROOT / "bench" / "load"
WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wno-sign-conversion")
PATIENCE = 300  # seconds for one measurement


def compile_c(sources: list[Path], name: str, *flags: str) -> Path:
    """Compile C files into the cache, unless it holds the program already. Returns the program's path."""
    compiler = shutil.which("gcc")
    if compiler is None:
        raise BenchError("gcc is needed to compile the load generator")
    state = hashlib.sha256(repr(flags).encode())
    for source in sources:
        state.update(source.read_bytes())
    program = CACHE / "built" / f"{name}-{state.hexdigest()[:12]}"
    if not program.exists():
        program.parent.mkdir(parents=True, exist_ok=True)
        new = program.with_suffix(".new")
        files = [str(source) for source in sources if source.suffix == ".c"]
        command = [compiler, "-O2", *WARNINGS, "-o", str(new), *files, *flags]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise BenchError(f"{name} cannot be compiled:\n{done.stderr[-2000:]}")
        new.rename(program)
    return program


def has_tls() -> bool:
    """Tell whether the headers of OpenSSL are there."""
    return Path("/usr/include/openssl/ssl.h").exists()


def load_program() -> Path:
    """Return the load generator, with TLS where OpenSSL's headers are."""
    tls = ("-DWITH_TLS", "-lssl", "-lcrypto") if has_tls() else ()
    return compile_c(sorted(SOURCES.iterdir()), "load", "-lm", *tls)


def arguments(mode: str, port: int, options: dict[str, Any]) -> list[str]:
    """Return the command line of one measurement."""
    options = {"host": HOST, "port": port, **options}
    return [str(load_program()), mode, *(f"{name}={value}" for name, value in options.items())]


def run(mode: str, port: int, options: dict[str, Any], pinned: bool = True) -> dict[str, float]:
    """Run one measurement, and return its figures: times in seconds, rates a second."""
    with on_core(LOAD_CORE if pinned else None):
        process = subprocess.Popen(arguments(mode, port, options), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        out, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
        process.wait()
    if process.returncode:
        told = errors.decode(errors="replace").strip()[-500:]
        raise BenchError(told or f"the generator ended by {process.returncode}")
    figures: dict[str, float] = json.loads(out)
    return figures
