"""python -m export.checks: teach a version's checks what clean images look like, and measure what they find."""

import sys

if __name__ == "__main__":
    try:
        from export.checking import main
    except ModuleNotFoundError as missing:
        sys.exit(f"python -m export.checks needs {missing.name}; install it with: pip install '.[export]'")
    main()
