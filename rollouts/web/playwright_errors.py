"""Classifies errors of Playwright.

Playwright has one class for all errors except timeouts, so they are distinguished by the text of their message. This module contains
all phrases that we rely on. A test provokes the errors with the installed version. For states that are too short-lived to provoke,
it searches the installed code for the phrase.
"""

_LEFT = ("context was destroyed", "navigated or closed", "Cannot find context", "Promise was collected", "No frame for given id")
_CLOSED = ("has been closed",)
_CRASHED = ("crashed",)
_DOWNLOAD = ("Download is starting",)
_NOT_ACTIVE = ("Not attached to an active page",)
_NOT_INSTALLED = ("Executable doesn't exist",)
_NO_SANDBOX = ("Chromium sandboxing failed", "No usable sandbox")
_DRIVER_GONE = ("reading from the driver",)


def is_left(error: BaseException | None) -> bool:
    """The page navigated away during the call."""
    return _says(error, _LEFT)


def is_closed(error: BaseException | None) -> bool:
    """The page, its context or its browser has closed."""
    return _says(error, _CLOSED)


def is_crashed(error: BaseException | None) -> bool:
    """The page's renderer crashed."""
    return _says(error, _CRASHED)


def is_download(error: BaseException | None) -> bool:
    """The address of a navigation is a file to download, which no page shows."""
    return _says(error, _DOWNLOAD)


def is_not_active(error: BaseException | None) -> bool:
    """The tab has no active page for a moment, while the page of one process is replaced by the page of another."""
    return _says(error, _NOT_ACTIVE)


def is_not_installed(error: BaseException | None) -> bool:
    """Playwright's own browser was not downloaded."""
    return _says(error, _NOT_INSTALLED)


def is_no_sandbox(error: BaseException | None) -> bool:
    """The system does not permit this user to start Chromium's sandbox."""
    return _says(error, _NO_SANDBOX)


def is_driver_gone(error: BaseException | None) -> bool:
    """Playwright's driver process has ended."""
    return _says(error, _DRIVER_GONE)


def _says(error: BaseException | None, phrases: tuple[str, ...]) -> bool:
    text = str(error)
    return any(phrase in text for phrase in phrases)
