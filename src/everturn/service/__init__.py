"""The fleet's service: webhooks, admin requests, metrics, an API and a dashboard. Thin: the parts do the work."""
