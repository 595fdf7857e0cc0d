"""Sweeps: many values of one config. Spaces, samplers, runners, and the table of results."""
