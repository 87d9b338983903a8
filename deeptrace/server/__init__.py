"""Receives, stores, joins and serves spans."""
