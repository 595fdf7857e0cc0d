"""Styles, scripts and their data inside of a page whose content security policy allows nothing else."""

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from markupsafe import Markup


def stylesheet(package: str, file: str) -> str:
    """A stylesheet of a package, after the colours that all pages share.

    >>> stylesheet("cnn_jax.report", "page.css").count("--accent: ")
    2
    """
    palette = resources.files("cnn_jax.report").joinpath("palette.css")
    sheets = palette, resources.files(package).joinpath(file)
    return "\n".join(sheet.read_text(encoding="utf-8") for sheet in sheets)


def script_hash(script: str) -> str:
    """The hash that identifies a script in a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def script_json(values: Any) -> Markup:
    """JSON that is safe inside a script element: it cannot contain a closing tag.

    >>> script_json({"name": "</script>"})
    Markup('{"name":"\\\\u003c/script>"}')
    """
    return Markup(json.dumps(values, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c"))
