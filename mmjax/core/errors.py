"""Typed errors, one sentence each (what, wanted, got, how to fix), and the verbs' exit codes."""

import enum


class ExitCode(enum.IntEnum):
    """Exit codes of every verb."""

    DONE = 0
    FAIL_ON = 1  # `--fail_on` was reached: a gate for pipelines
    USER = 2  # the user must act, a retry is useless
    DEGRADED = 3  # finished, but more inputs were skipped than `max_bad_fraction` allows
    RETRY = 42  # SIGTERM, as of a preemption, or a lost peer: start the same command again
    SIGINT = 130


class MmjaxError(Exception):
    """Base of every error that mmjax raises on purpose; `exit_code` is what the verb returns."""

    exit_code: ExitCode = ExitCode.USER


class ConfigError(MmjaxError):
    """A configuration key or value is unknown, missing, wrong, out of range or contradictory."""


class InputError(MmjaxError):
    """The input as a whole cannot be read (no such path, empty glob, not what it claims to be)."""


class ShardError(InputError):
    """One shard cannot be read to its end."""


class ImageError(MmjaxError):
    """One image cannot be used; `status` is the row's status (`core.types.STATUSES`)."""

    def __init__(self, status: str, message: str):
        super().__init__(message)
        self.status = status


class WeightsError(MmjaxError):
    """Model weights are missing, incomplete, of the wrong shape or in an unsafe format."""


class TokenizerError(MmjaxError):
    """The tokenizer's files are missing or do not fit the model."""


class RunError(MmjaxError):
    """The run folder is in use, belongs to another configuration, or cannot be written."""


class NonFiniteLossError(MmjaxError):
    """Training has diverged: the loss of a step is NaN or infinite."""


class RetryError(MmjaxError):
    """The work was interrupted in a resumable state; start the same command again."""

    exit_code = ExitCode.RETRY
