"""python -m export.checks: teach a version's checks what clean images look like, and measure what they find."""

from export.launching import launch

if __name__ == "__main__":
    launch("export.checks", "export.checking", extra="verify")
