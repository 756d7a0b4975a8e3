"""What journals, mirrors and searching cost, beside the least that they could."""
