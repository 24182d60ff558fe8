"""Sphinx's settings: `python -m sphinx -W -b html docs docs/_build/html` from the root of a checkout."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import longconn

project = "longconn"
author = "the longconn developers"
copyright = "the longconn developers; MIT licence"
version = release = longconn.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["deflist"]

# Docstrings are plain text: one backtick is code.
default_role = "code"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"

html_theme = "alabaster"
html_theme_options = {"description": "one server for every long connection", "fixed_sidebar": True}
