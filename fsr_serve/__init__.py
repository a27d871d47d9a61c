"""Serves image classifiers that stay right under attack. Never imports torch, `training` or `export`."""
