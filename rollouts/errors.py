"""Failures that are nobody's fault in the episode: the machinery broke, so the episode says nothing about the policy."""


class InfraError(Exception):
    """Browser, site or endpoint failed. The episode is tried again, and never scored."""

    part = "infrastructure"

    def __str__(self) -> str:
        return f"{self.part}: {super().__str__()}"


class BrowserError(InfraError):
    part = "browser"


class SiteError(InfraError):
    part = "site"


class EndpointError(InfraError):
    part = "endpoint"


class WorkerError(InfraError):
    part = "worker"
