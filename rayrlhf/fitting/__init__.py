"""Fitting a reward model to a dataset alone: no environment, no Ray."""
