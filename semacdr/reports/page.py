"""One HTML file that needs nothing else: data as JSON, our style and script inlined, everything else forbidden to it.

Titles and texts come from strangers. They stand in the page as JSON alone, where no ``<`` is written, and the script
puts them into text nodes. A content security policy admits this script and this style by their hashes: nothing that
slipped through could run, and nothing can be fetched.
"""

from __future__ import annotations

import base64
import hashlib
import html
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import orjson

_SCRIPTS = ("dom.js", "charts.js", "figures.js", "model.js", "explorer.js", "main.js")
"""In the order in which they build on each other."""


def write_page(path: Path, document: Mapping[str, Any]) -> int:
    """Write the page of a document, and return its size in bytes.

    Args:
        path: of the HTML file.
        document: JSON values; ``about.title`` is the page's title.
    """
    style = _read("page.css")
    script = "(() => {\n" + "\n".join(_read(f"scripts/{name}") for name in _SCRIPTS) + "\n})();\n"
    parts = {
        "title": html.escape(document["about"]["title"]),
        "policy": f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'",
        "style": style,
        "data": _json(document),
        "script": script,
    }
    page = _read("page.html")
    for name, text in parts.items():
        page = page.replace(f"<!-- {name} -->", text, 1)
    data = page.encode()
    path.write_bytes(data)
    return len(data)


def _json(document: Mapping[str, Any]) -> str:
    """JSON that cannot end the script element that it stands in."""
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY).decode().replace("<", "\\u003c")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _read(name: str) -> str:
    return (resources.files(__package__) / "page" / name).read_text(encoding="utf-8")
