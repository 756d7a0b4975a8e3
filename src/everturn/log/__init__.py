"""An append-only log of JSON entries on an object store. It knows nothing about Claude."""
