"""python -m training: train a network adversarially; may be killed at any moment and resumed."""

import sys

try:
    from training.command import main
except ModuleNotFoundError as missing:
    sys.exit(f"python -m training needs {missing.name}; install it with: pip install '.[train]'")

if __name__ == "__main__":
    main()
