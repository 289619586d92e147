"""Errors of the agent service.

::

    ServiceError (runtime)
    ├── InvalidArgumentError    a field is missing or out of range
    ├── ModelNotFoundError      no verified model of that name or version
    ├── DrainingError           the service is going away: open the stream again elsewhere
    └── ModelRefusedError       a model's files do not prove what they are (never on the wire; the log has it)
"""

from services.runtime.errors import Code, ServiceError


class InvalidArgumentError(ServiceError):
    """A field is missing or out of range; ``field`` names it."""

    reason = "INVALID_ARGUMENT"
    code = Code.INVALID_ARGUMENT

    def __init__(self, field: str, rule: str) -> None:
        super().__init__(f"{field} {rule}", field=field)


class ModelNotFoundError(ServiceError):
    """No verified model of that name or version is loaded."""

    reason = "MODEL_NOT_FOUND"
    code = Code.NOT_FOUND

    def __init__(self) -> None:
        super().__init__("no such model")


class DrainingError(ServiceError):
    """The process is shutting down; another replica answers."""

    reason = "DRAINING"
    code = Code.UNAVAILABLE

    def __init__(self) -> None:
        super().__init__("the agent is shutting down")


class ModelRefusedError(ServiceError):
    """A model's files do not prove what they are, or are not for this service. Nothing of them was run."""

    reason = "MODEL_REFUSED"
    code = Code.FAILED_PRECONDITION
