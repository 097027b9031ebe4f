"""Figures of a run, stored, shown, compared and judged by the targets."""
