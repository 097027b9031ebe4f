"""Tools of the people who run a project: look, plan changes, pause and move durables."""
