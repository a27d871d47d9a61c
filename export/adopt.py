"""python -m export.adopt: a model version around an ONNX classifier made elsewhere."""

from export.launching import launch

if __name__ == "__main__":
    launch("export.adopt", "export.adoption", extra="export")
