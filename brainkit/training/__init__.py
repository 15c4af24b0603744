"""Fitting the model."""
