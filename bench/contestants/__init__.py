"""What competes: one module each, run in a process and an environment of its own.

A module here may import only the standard library, `contestants.task`, `contestants.work` and the
library it stands for: it runs in that library's environment.
"""
