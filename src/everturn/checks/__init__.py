"""Checks of a machine, a store and a registry, before anything is trusted to them: `everturn doctor`."""
