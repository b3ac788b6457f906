"""What goes wrong with a bucket, as errors that say what to do and hold no key."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    NotFoundError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)

from semacdr.errors import SemacdrError, StoreError, TransientError

# The service's own error code, the only sign of what it means where the client has no class for it (listing, deleting):
# https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_CODE = re.compile(r"<Code>(\w+)</Code>|\(code: (\w+)\)")
_DENIED = frozenset(
    {
        "AccessDenied",
        "AccountProblem",
        "AllAccessDisabled",
        "ExpiredToken",
        "InvalidAccessKeyId",
        "InvalidToken",
        "SignatureDoesNotMatch",
    }
)
_SECRETS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def client_errors(uri: str) -> Callable[[], AbstractContextManager[None]]:
    """Return a context that turns the client's errors into ours.

    Let through are those that are answers: no such object, there is one already, it is another by now.
    """

    @contextmanager
    def translated() -> Iterator[None]:
        try:
            yield
        except (AlreadyExistsError, PreconditionError):
            raise
        except BaseError as error:
            code = _code(error)
            if isinstance(error, NotFoundError) and code != "NoSuchBucket":
                raise
            # Not chained: the client's text holds the request, which may hold keys.
            raise _translate(uri, error, code) from None

    return translated


def _translate(uri: str, error: BaseError, code: str) -> SemacdrError:
    bucket = uri.removeprefix("s3://").partition("/")[0]
    if code == "NoSuchBucket":
        return StoreError(
            f"there is no bucket {bucket!r} for the store {uri}",
            found=f"{code} from {_endpoint()}",
            do="make the bucket, or mend --store, AWS_ENDPOINT_URL and AWS_REGION",
        )
    if code in _DENIED or isinstance(error, PermissionDeniedError | UnauthenticatedError):
        return StoreError(
            f"no permission for the store {uri}",
            found=f"{code or type(error).__name__} from {_endpoint()}",
            expected="keys that may list, get, put and delete objects below the prefix",
            do="mend AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY or the bucket's policy",
        )
    return TransientError(
        f"the store {uri} does not answer as it should",
        found=f"{code or type(error).__name__} from {_endpoint()}: {_without_secrets(error)}",
        do="try again; if it stays so, look at AWS_ENDPOINT_URL, the AWS_* keys and the service",
    )


def _endpoint() -> str:
    return os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or "AWS"


def _code(error: BaseError) -> str:
    match = _CODE.search(str(error))
    return (match[1] or match[2]) if match else ""


def _without_secrets(error: BaseError) -> str:
    text = str(error).partition("\n")[0][:300]
    for name in _SECRETS:
        if value := os.environ.get(name):
            text = text.replace(value, "***")
    return text
