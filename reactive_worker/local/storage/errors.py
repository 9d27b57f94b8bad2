"""The storage server's error answers: a status in the body, and mostly another one on the outside."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from reactive_worker.local.rest.errors import DatabaseError


class StorageError(Exception):
    """A request that is answered with an error.

    Parameters
    ----------
    status:
        What the body says.
    error:
        Its short name, which clients show as the code.
    message:
        What happened.
    """

    def __init__(self, status: int, error: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error = error
        self.message = message

    def answer(self) -> Response:
        """The answer; as the storage server does it, everything but its own failures is HTTP 400."""
        body = {"statusCode": str(self.status), "error": self.error, "message": self.message}
        return JSONResponse(body, self.status if self.status >= 500 else 400)


def no_bucket() -> StorageError:
    """There is no such bucket, or none this user may see."""
    return StorageError(404, "Bucket not found", "Bucket not found")


def no_object() -> StorageError:
    """There is no such object, or none this user may see."""
    return StorageError(404, "not_found", "Object not found")


def unsupported(what: str) -> StorageError:
    """Something the storage server can do and this one cannot."""
    return StorageError(
        501,
        "NotImplemented",
        f"{what} is not supported by the embedded Supabase: use `supabase start` or a hosted project",
    )


def from_database(error: DatabaseError) -> StorageError:
    """What PostgreSQL's refusal means here."""
    if error.sqlstate == "42501":
        return StorageError(403, "Unauthorized", error.message)
    if error.sqlstate == "23505":
        return StorageError(409, "Duplicate", "The resource already exists")
    if error.sqlstate == "23503" and "buckets" in error.message:
        return StorageError(409, "InvalidRequest", "The bucket you tried to delete is not empty")
    if error.sqlstate == "23503":
        return no_bucket()
    status = 503 if error.sqlstate == "" or error.sqlstate[:2] in ("08", "53", "57") else 500
    return StorageError(status, "DatabaseError", error.message)
