"""Settings of Sphinx; `make docs` builds."""

from __future__ import annotations

import gvcore

project = "gvcore"
author = "The gvcore developers"
copyright = "The gvcore developers, BSD-3-Clause"
version = release = gvcore.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.mathjax", "numpydoc", "myst_parser"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
exclude_patterns = ["README.md"]

# In the docstrings single backquotes hold names and short pieces of code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "none"
# What the rooms of the package tell one another is not for users.
autodoc_default_options = {
    "exclude-members": "native, extra_repr, run, run_many, inventory, aliases, place, suit, reset"
}
numpydoc_show_class_members = False

html_theme = "alabaster"
html_theme_options = {
    "description": "very deep networks on a CPU",
    "page_width": "1100px",
    "sidebar_width": "240px",
}
html_title = "gvcore"
