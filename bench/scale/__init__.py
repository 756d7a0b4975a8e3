"""What a fleet asks of AWS: agents simulated with the real code, and what follows for ten, a thousand, 100,000."""
