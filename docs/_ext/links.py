"""Links that lead out of docs/ to files of the repository: a Git host follows them, here they are named.

Without this Sphinx would offer each such file for download.
"""

from pathlib import Path

from docutils import nodes
from sphinx import addnodes

# What has a page of its own here, though its file is elsewhere.
PAGES = {"README.md": "index", "BUILD_NOTES.md": "build"}


def outside(app, document) -> None:
  """Makes each link to a file of the repository a link to its page, or its name in code."""
  root = Path(app.srcdir).parent
  for node in list(document.findall(addnodes.download_reference)):
    target = (Path(document["source"]).parent / node["reftarget"]).resolve()
    if not target.is_relative_to(root) or not target.exists():
      continue  # Sphinx says that it is missing
    name = str(target.relative_to(root))
    page = {"refdomain": "std", "reftype": "doc", "refexplicit": True, "refwarn": True, "refdoc": app.env.docname}
    if name in PAGES:
      node.replace_self(
        addnodes.pending_xref("", nodes.inline("", node.astext()), reftarget=f"/{PAGES[name]}", **page)
      )
    else:
      node.replace_self(nodes.literal("", name))


def setup(app) -> dict:
  """Called by Sphinx."""
  app.connect("doctree-read", outside)
  return {"parallel_read_safe": True}
