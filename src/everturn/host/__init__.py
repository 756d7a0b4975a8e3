"""What a machine knows of the runs on it: their folders, their processes, what they left behind."""
