"""Optional parts: Django apps of their own, which cost nothing where they are not installed."""
