"""Typed payloads: an annotation decodes a message, and the type of an object encodes it."""
