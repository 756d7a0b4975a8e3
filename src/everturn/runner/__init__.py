"""Durable runs of work items."""
