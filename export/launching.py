"""How the commands start: a package that is missing is named, with the extra that installs it."""

import sys
from importlib import import_module


def launch(command: str, module: str, *, extra: str) -> None:
    """Run `main` of the module that holds the command."""
    try:
        main = import_module(module).main
    except ModuleNotFoundError as missing:
        sys.exit(f"python -m {command} needs {missing.name}; install it with: pip install '.[{extra}]'")
    main()
