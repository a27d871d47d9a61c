"""python -m export: a checkpoint becomes a model version that can be served."""

from export.launching import launch

if __name__ == "__main__":
    launch("export", "export.command", extra="export")
