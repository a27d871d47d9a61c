"""What stops a benchmark, in a sentence that names the fix."""


class BenchmarkError(Exception):
    """A tool is missing, a server did not start, or answers differ."""
