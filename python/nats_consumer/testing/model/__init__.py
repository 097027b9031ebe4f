"""A model of a server: streams and durables in memory, and a clock that does not run by itself. It
asks the engine for every decision about a message."""
