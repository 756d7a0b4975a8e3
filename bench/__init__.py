"""The benchmark: Everturn, a baseline and the physical limit, side by side on one S3 server (docs/performance.md)."""
