"""git, as it is run here: with what it needs to reach remotes, and without what an agent may have written."""
