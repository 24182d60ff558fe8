"""A simulation of several nodes and a Redis on one clock, with faults by a seed: see `tests.simulation.__main__`."""
