"""python -m export.verify: attack the very files that will be deployed."""

import sys

if __name__ == "__main__":
    try:
        from export.verification import main
    except ModuleNotFoundError as missing:
        sys.exit(f"python -m export.verify needs {missing.name}; install it with: pip install '.[export]'")
    main()
