"""What becomes of workdirs and caches when nobody works in them."""
