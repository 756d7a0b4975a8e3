"""Looking after the sessions of a store: checking, mending, bringing in, compacting, deleting, expiring."""
