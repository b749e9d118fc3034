"""Infrastructure errors: failures of browser, site, endpoint or machine, which say nothing about the policy."""


class InfraError(Exception):
    """Browser, site or endpoint failed. The episode is retried and never scored."""

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


class UnsupportedError(InfraError):
    """A page needs something of a browser that the driver `asgi` does not have."""

    part = "driver asgi"
