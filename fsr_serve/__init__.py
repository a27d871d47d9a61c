"""Serves image classifiers that stay right under attack. Never imports torch, `training` or `export`."""

__version__ = "0.1.0"
