"""What journals and their mirrors cost."""
