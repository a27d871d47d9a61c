"""python -m training.evaluation: how robust is this checkpoint?"""

import sys

try:
    from training.evaluation.command import main
except ModuleNotFoundError as missing:
    sys.exit(f"python -m training.evaluation needs {missing.name}; install it with: pip install 'fsr-serve[train]'")

if __name__ == "__main__":
    main()
