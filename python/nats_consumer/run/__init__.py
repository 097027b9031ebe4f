"""Running consumers in a process: start, restart, stop."""
