# SPDX-License-Identifier: GPL-2.0-or-later
"""How Sphinx builds the documentation: ``sphinx-build -W docs OUTPUT``."""

from __future__ import annotations

from importlib.metadata import version as version_of

project = "klpfs"
version = release = version_of("klpfs")
copyright = "the klpfs authors"

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_click"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
nitpicky = True
nitpick_ignore_regex = [("py:class", r"(pathlib|collections)\..*")]  # there is no network to find them
highlight_language = "text"

html_theme = "furo"
html_title = f"klpfs {release}"
html_copy_source = False
html_show_sphinx = False
