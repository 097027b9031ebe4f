"""Sphinx settings of the documentation site; make/site.py prepares the pages."""

from nats_consumer import __version__

project = "django-nats-consumer"
version = release = __version__
html_title = f"{project} {__version__}"
html_theme = "furo"
html_theme_options = {"navigation_with_keys": True}
html_show_sphinx = False
html_copy_source = False
html_show_sourcelink = False
smartquotes = False

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
]
root_doc = "index"
nitpicky = True
myst_heading_anchors = 4
# Docstrings write code in single backticks, as Markdown does.
default_role = "literal"
# What is copied from a console block: the commands, without prompt and output.
copybutton_prompt_text = "$ "
highlight_language = "python"

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
autodoc_default_options = {"members": True, "show-inheritance": True}
# Types of the standard library, of Django and of the compiled module have no page here.
nitpick_ignore_regex = [("py:.*", r".*")]
