"""The contestants: one module each, run in its own process and environment.

A module here may import only the standard library, `contestants.task`, `contestants.work` and the
library it stands for: it runs in that library's environment.
"""
