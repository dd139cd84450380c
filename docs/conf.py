"""Sphinx configuration: `make docs` builds the site, and a warning fails the build."""

from __future__ import annotations

import sys
from importlib.metadata import version as version_of
from pathlib import Path

from sphinx.application import Sphinx

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS))

project = "Sparqsim"
copyright = "The Sparqsim authors, Apache-2.0"
release = version = version_of("sparqsim")
language = "en"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["**/_generated/**", "**/.ipynb_checkpoints/**"]

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = True
napoleon_google_docstring = False
napoleon_use_ivar = True
pygments_style = "friendly"

html_theme = "furo"
html_title = f"Sparqsim {release}"
html_static_path = ["_static"]
html_css_files = ["sparqsim.css"]
html_theme_options = {"navigation_with_keys": True}
html_copy_source = False


LECTURE = """
```{{toctree}}
:hidden:
:caption: Lecture

{pages}
```
"""


def join_lecture(_: Sphinx, name: str, source: list[str]) -> None:
    """Give the pages of the lecture, a kit with files of its own, their place on the first page."""
    pages = {page.stem for page in (DOCS / "lecture").glob("*.md")}
    if name == "index" and pages:
        order = sorted(pages, key=lambda page: (not page.startswith("index"), page))
        source[0] += LECTURE.format(pages="\n".join(f"lecture/{page}" for page in order))


def setup(app: Sphinx) -> None:
    """Write the generated pages before the sources are read."""
    import reference_pages

    reference_pages.write(DOCS / "reference" / "_generated")
    app.connect("source-read", join_lecture)
