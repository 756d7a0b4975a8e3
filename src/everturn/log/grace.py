"""How long a number stays taken after it was written (docs/format.md, section 5, rule 7; docs/decisions/0009)."""

from __future__ import annotations

# A writer whose knowledge of the tail is older than this looks again before it believes in what it has created.
GRACE_S = 60.0
# Whoever frees numbers waits twice as long: clocks differ a little, and the store's has coarse ticks.
FREE_AFTER_MS = int(2 * GRACE_S * 1000)
