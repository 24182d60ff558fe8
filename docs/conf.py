"""Sphinx's settings: `python -m sphinx -n -W -b html docs docs/_build/html` from the root of a checkout."""

import re
import sys
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import longconn

project = "longconn"
author = "the longconn developers"
copyright = "the longconn developers; MIT licence"
version = release = longconn.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
myst_heading_anchors = 3
myst_enable_extensions = ["attrs_inline", "deflist"]

# Docstrings are plain text: one backtick is code.
default_role = "code"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
maximum_signature_line_length = 90
autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"

html_theme = "furo"
html_title = f"longconn {release}"
html_favicon = "../longconn/web/icon.svg"
html_logo = "../longconn/web/icon.svg"
html_static_path = ["static"]
html_css_files = ["longconn.css"]
html_show_sourcelink = False

# What a copy button copies: of a listing with prompts the commands alone, of others all.
copybutton_prompt_text = r"\$ "
copybutton_prompt_is_regexp = True

# Types of other projects, and our own that programs do not make: they are named in signatures, and described elsewhere.
_OF_OTHERS = r"(collections|pathlib|twisted|prometheus_client|google|OpenSSL|h2)\..*"
_OF_OURS = (
    "broker.Broker|client.Format|client.Outlet|identity.Capability|long_poll.LongPoll|names.NameRequest|namespaces.Action"
    "|namespaces.ChannelOptions|namespaces.Namespaces|revocations.Revocation|timers.Clock"
)
nitpick_ignore_regex = [
    ("py:.*", _OF_OTHERS),
    ("py:.*", rf"longconn\.core\.({_OF_OURS})"),
    (
        "py:.*",
        r"longconn\.(server_api\.overview\.Recent|protocols\.chat\.tcp\.ChatLinesFactory|clients\.centrifugo\.PendingCommand)",
    ),
    ("py:.*", r".*\b(tuple|Mapping|Sequence|Callable)\[.*"),
]

# Objects of these classes come from a method of another. How they are made is private.
_NOT_MADE_BY_PROGRAMS = {
    "longconn.ChatProtocol",
    "longconn.GrpcCall",
    "longconn.Data",
    "longconn.clients.Client",
    "longconn.clients.Member",
    "longconn.clients.Subscription",
    "longconn.core.client.Client",
    "longconn.core.door.Door",
    "longconn.core.publication.Data",
    "longconn.service.member.MemberClosed",
    "longconn.service.member.MemberSubscription",
    "longconn.testing.Connection",
    "longconn.testing.lines.ConnectedClient",
}


def _sign(
    app: Any, what: str, name: str, subject: object, options: Any, signature: str | None, returned: str | None
) -> tuple[str | None, str | None]:
    """A class that programs do not make has no constructor; a default that is an object reads as `...`."""
    if name in _NOT_MADE_BY_PROGRAMS:
        return "", None
    if signature is not None and "<" in signature:
        signature = re.sub(r"<(function|class|object)?[^<>]*>", "...", signature)
    return signature, returned


def _describe(app: Any, page: str, template: str, context: dict[str, Any], tree: nodes.document | None) -> None:
    """A page without a description for search engines is described by its first paragraph."""
    first = next(tree.findall(nodes.paragraph), None) if tree is not None else None
    if first is not None:
        text = " ".join(first.astext().split())
        text = text if len(text) <= 160 else text[:157].rpartition(" ")[0] + "…"
        context["metatags"] += f'\n<meta name="description" content="{escape(text)}">'


def setup(app: Any) -> None:
    app.connect("autodoc-process-signature", _sign)
    app.connect("html-page-context", _describe)
