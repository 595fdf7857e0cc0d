"""Sweeps: one config, many values. Spaces and engines, the runners, and the table of what came out."""
