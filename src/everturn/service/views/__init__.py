"""What the pages and the API show, as values. Nothing here knows HTML."""
