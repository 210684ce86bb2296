"""How Sphinx builds the site."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import django
from django.conf import settings

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "Airlock"
author = "Airlock contributors"
html_title = "Airlock"
html_theme = "furo"
html_show_copyright = False

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "examples"]
myst_heading_anchors = 3

# In docstrings, `name` is a link where there is something to link to, and code in any case.
default_role = "py:obj"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_use_rtype = False


# What describes the outbox and Django-Q2 imports their models.
settings.configure(
    INSTALLED_APPS=["airlock.integrations.outbox", "django_q"],
    Q_CLUSTER={"timeout": 30, "retry": 60},  # it warns of its own defaults
    SECRET_KEY="of no site",
)
django.setup()

#: Docstrings of attributes and properties, as they were.
_plain: dict[str, list[str]] = {}


def mark_examples(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Tell reStructuredText that the indented blocks in our docstrings are code, as they do not end in `::`.

    The sections that Napoleon knows, such as `Args:`, are indented as well, and left alone.
    """
    marked: list[str] = []
    for index, line in enumerate(lines):
        begins = line.startswith("    ") and index > 0 and not lines[index - 1].strip()
        above = next((text for text in reversed(lines[:index]) if text.strip()), "")
        if begins and above and not above.startswith(" "):
            marked += [".. code-block:: python", ""]
        marked.append(line)
    lines[:] = marked
    if what in {"attribute", "property"}:
        _plain[name] = list(lines)


def keep_colons(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Undo what Napoleon does to attributes and properties: it takes the text before the first colon for a type."""
    lines[:] = _plain.pop(name, lines)


def setup(app: Sphinx) -> dict[str, Any]:
    # Before and after Napoleon, which has the usual priority of 500.
    app.connect("autodoc-process-docstring", mark_examples, priority=400)
    app.connect("autodoc-process-docstring", keep_colons, priority=600)
    return {"parallel_read_safe": True}
