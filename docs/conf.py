"""How Sphinx builds the site: `make docs`. Nothing is fetched, neither here nor by the pages."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

import gaussjax  # noqa: E402

project = "gaussjax"
copyright = "the gaussjax authors, Apache-2.0"  # noqa: A001
version = release = gaussjax.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "plain_docstrings", "links"]
exclude_patterns = ["_ext", "**/.ipynb_checkpoints"]
root_doc = "index"

# The notebooks are kept with what they print and draw: `make notebooks` runs them.
nb_execution_mode = "off"

myst_heading_anchors = 4  # so that page.md#a-heading leads to the same place here and on a Git host
suppress_warnings = ["misc.highlighting_failure"]  # shell with output

default_role = "code"
add_module_names = False
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
autodoc_type_aliases = {"ArrayLike": "ArrayLike", "NDArray": "NDArray"}
python_maximum_signature_line_length = 88

html_theme = "furo"
html_title = f"gaussjax {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sourcelink = False
html_copy_source = False
