"""The way to the server: settings, secrets, callbacks, and the embedded server."""
