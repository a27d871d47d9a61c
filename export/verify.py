"""python -m export.verify: attack the very files that will be deployed."""

from export.launching import launch

if __name__ == "__main__":
    launch("export.verify", "export.verification", extra="verify")
