"""Classifies Chromium's network errors: failures of the site or the machine, or results of the policy's own action.

The names are those of net/base/net_error_list.h. Errors outside of `DOWN` are not infrastructure errors: the browser shows people
an error page, and the policy is shown the text from `describe`.
"""

DOWN = frozenset(
    {
        "ERR_ADDRESS_UNREACHABLE",
        "ERR_CONNECTION_FAILED",
        "ERR_CONNECTION_REFUSED",
        "ERR_CONNECTION_TIMED_OUT",
        "ERR_DNS_SERVER_FAILED",
        "ERR_DNS_TIMED_OUT",
        "ERR_FAILED",
        "ERR_INSUFFICIENT_RESOURCES",
        "ERR_INTERNET_DISCONNECTED",
        "ERR_NAME_NOT_RESOLVED",
        "ERR_NAME_RESOLUTION_FAILED",
        "ERR_NETWORK_ACCESS_DENIED",
        "ERR_NETWORK_CHANGED",
        "ERR_NETWORK_IO_SUSPENDED",
        "ERR_NO_BUFFER_SPACE",
        "ERR_OUT_OF_MEMORY",
        "ERR_PROXY_CONNECTION_FAILED",
        "ERR_SOCKS_CONNECTION_FAILED",
        "ERR_SOCKS_CONNECTION_HOST_UNREACHABLE",
        "ERR_TIMED_OUT",
        "ERR_TUNNEL_CONNECTION_FAILED",
        "ERR_UNEXPECTED",
    }
)
"""The site can't be reached, or the machine lacks a resource. Through the fence, a refused connection is a failed SOCKS connection."""

BROKEN_OFF = frozenset(
    {
        "ERR_CONNECTION_ABORTED",
        "ERR_CONNECTION_CLOSED",
        "ERR_CONNECTION_RESET",
        "ERR_CONTENT_LENGTH_MISMATCH",
        "ERR_EMPTY_RESPONSE",
        "ERR_INCOMPLETE_CHUNKED_ENCODING",
    }
)
"""The connection ended early. If the site still accepts connections, this is the result of the action; otherwise the site is down."""

_INVALID = "the site sent an invalid response"
WORDS = {
    "ERR_CACHE_MISS": "it was the answer to a form, which would have to be sent again",
    "ERR_CONTENT_DECODING_FAILED": _INVALID,
    "ERR_CONTENT_LENGTH_MISMATCH": "it broke off",
    "ERR_EMPTY_RESPONSE": "the site sent no data",
    "ERR_FILE_NOT_FOUND": "it no longer exists",
    "ERR_INCOMPLETE_CHUNKED_ENCODING": "it broke off",
    "ERR_INVALID_HTTP_RESPONSE": _INVALID,
    "ERR_INVALID_REDIRECT": "the site redirects to an address that does not exist",
    "ERR_INVALID_RESPONSE": _INVALID,
    "ERR_RESPONSE_HEADERS_MULTIPLE_CONTENT_DISPOSITION": _INVALID,
    "ERR_RESPONSE_HEADERS_MULTIPLE_CONTENT_LENGTH": _INVALID,
    "ERR_RESPONSE_HEADERS_MULTIPLE_LOCATION": _INVALID,
    "ERR_RESPONSE_HEADERS_TOO_BIG": _INVALID,
    "ERR_SSL_PROTOCOL_ERROR": "the site has no secure connection",
    "ERR_TOO_MANY_REDIRECTS": "the site redirects too often",
    "ERR_UNEXPECTED_PROXY_AUTH": _INVALID,
    "ERR_UNKNOWN_URL_SCHEME": "addresses of this kind can't be opened",
    "ERR_UNSAFE_REDIRECT": "the site redirects to an address that pages may not open",
}
"""Short forms of the error pages' texts. Each was reproduced with a link or form of a test page. Other errors are shown by their code."""


def code_of(failure: str) -> str:
    """Extracts `ERR_X` from Playwright's `net::ERR_X`."""
    return failure.rpartition("::")[2]


def describe(code: str) -> str:
    return f"{WORDS.get(code, 'the browser can not open it')} ({code})" if code else "the browser can not open it"
