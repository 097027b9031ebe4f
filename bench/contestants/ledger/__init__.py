"""A Django app with one table, for handlers that write to a database."""
