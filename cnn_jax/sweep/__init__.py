"""Sweeps: one config, many values. Spaces and samplers, the runners, and the table of what came out."""
