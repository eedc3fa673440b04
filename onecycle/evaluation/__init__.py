"""Judging: predict a split once, derive every figure from its probabilities."""
