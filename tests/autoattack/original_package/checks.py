"""The original's checks hand their words to `log`."""

from pyautoattack.checks import *  # noqa: F403


def check_range_output(model, x, logger):
    logger.log("Warning: by the original")
    return 10
