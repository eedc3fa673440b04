"""Showing: figures drawn from a run folder alone."""
