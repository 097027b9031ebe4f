"""Starts servers and contestants, fills streams, measures, and judges whether a run counts."""
