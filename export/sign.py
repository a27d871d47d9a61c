"""python -m export.sign: sign a model version."""

import sys

if __name__ == "__main__":
    try:
        from export.signing import main
    except ModuleNotFoundError as missing:
        sys.exit(f"python -m export.sign needs {missing.name}; install it with: pip install '.[export]'")
    main()
