"""What a user of the export commands can put right."""


class ExportError(ValueError):
    """Nothing was written; the message says why and the fix."""


class GraphError(ExportError):
    """The network cannot be written as an ONNX graph."""


class ParityError(ExportError):
    """The exported file does not compute what torch computes."""


class TargetError(ExportError):
    """The target of the export cannot be used."""


class VerificationError(ValueError):
    """Nothing was measured or changed; the message says why the version cannot be attacked as asked, and the fix."""
