"""Showing: figures and pages of what a run folder and its data hold."""
