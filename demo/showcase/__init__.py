"""The show around the shop, for run.py. Your project needs none of this."""
