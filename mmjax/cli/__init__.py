"""The `mmjax` command: verbs, `--help`, exit codes. The only place that prints.

Imports stay light: `mmjax --help` and `mmjax VERB --help` load no JAX.
"""

from mmjax.cli.main import entry_point, main

__all__ = ["entry_point", "main"]
