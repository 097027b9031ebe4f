"""Declarations: what consumer classes and their handlers say, read into options."""
