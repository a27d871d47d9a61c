"""The public HTTP surface: one Starlette app."""
