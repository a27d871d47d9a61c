"""python -m export.uploads: attack in the pixels of the pictures that clients send."""

import sys

if __name__ == "__main__":
    try:
        from export.upload_verification import main
    except ModuleNotFoundError as missing:
        sys.exit(f"python -m export.uploads needs {missing.name}; install it with: pip install '.[export]'")
    main()
