"""The listener's log: one line for everything that it decides."""

import logging

log = logging.getLogger("spaceport.listener")
