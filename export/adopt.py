"""python -m export.adopt: a model version around an ONNX classifier made elsewhere."""

import sys

if __name__ == "__main__":
    try:
        from export.adoption import main
    except ModuleNotFoundError as missing:
        sys.exit(f"python -m export.adopt needs {missing.name}; install it with: pip install '.[export]'")
    main()
