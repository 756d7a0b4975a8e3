"""The dashboard: pages that are rendered here, and told when there is news. Nothing in it changes anything."""
