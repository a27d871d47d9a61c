"""python -m export.sign: sign a model version."""

from export.launching import launch

if __name__ == "__main__":
    launch("export.sign", "export.signing", extra="verify")
