"""python -m export.uploads: attack in the pixels of the pictures that clients send."""

from export.launching import launch

if __name__ == "__main__":
    launch("export.uploads", "export.upload_verification", extra="verify")
