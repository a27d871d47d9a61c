"""python -m training.evaluation: how robust is this checkpoint?"""

import sys
from importlib import import_module

COMMANDS = {
    "certify": "training.evaluation.certify_command",
    "corruptions": "training.evaluation.corruptions_command",
    "features": "training.evaluation.features_command",
    "maps": "training.evaluation.maps_command",
    "tables": "training.evaluation.tables_command",
    "figures": "training.evaluation.figures_command",
    "compare": "training.evaluation.compare_command",
    "obfuscation": "training.evaluation.obfuscation_command",
    "cost": "training.evaluation.cost_command",
}
"""What is told apart by its first word; without one of these it is a run folder to attack."""


def main() -> None:
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name in COMMANDS:
        del sys.argv[1]
    try:
        command = import_module(COMMANDS.get(name, "training.evaluation.command"))
    except ModuleNotFoundError as missing:
        sys.exit(f"python -m training.evaluation needs {missing.name}; install it with: pip install '.[train]'")
    command.main()


if __name__ == "__main__":
    main()
