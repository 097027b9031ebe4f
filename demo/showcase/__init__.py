"""What makes a show of the shop, for run.py. A project of yours needs none of this."""
