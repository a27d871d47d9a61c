"""python -m export: a checkpoint becomes a model version that can be served."""

import sys

try:
    from export.command import main
except ModuleNotFoundError as missing:
    sys.exit(f"python -m export needs {missing.name}; install it with: pip install '.[export]'")

if __name__ == "__main__":
    main()
