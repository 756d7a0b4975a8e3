"""What is derived from journals, and can be thrown away and rebuilt from them (docs/mirrors.md)."""
