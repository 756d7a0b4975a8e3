"""The benchmark of workdirs; `python -m bench.workdirs`."""
