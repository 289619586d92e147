import json
import re
from pathlib import Path
from typing import ClassVar

import pytest
from tradebot.session.v1 import error_reason_pb2

from services.runtime.errors import Code, Fact, ServiceError
from services.session.rest_errors import HTTP_STATUS, present

PROTO = Path(__file__).parents[3] / "protos/tradebot/session/v1/error_reason.proto"


class PoorError(ServiceError):
    reason: ClassVar[str] = "INSUFFICIENT_FUNDS"
    code: ClassVar[Code] = Code.FAILED_PRECONDITION


class ThrottledError(ServiceError):
    reason: ClassVar[str] = "BROKER_LOGIN_THROTTLED"
    code: ClassVar[Code] = Code.RESOURCE_EXHAUSTED


class StrayError(ServiceError):
    reason: ClassVar[str] = "NOT_IN_THE_PROTO"
    code: ClassVar[Code] = Code.ABORTED


def body_of(error: ServiceError) -> dict[str, object]:
    text = dict(present(error))["x-error-body"]
    body: dict[str, object] = json.loads(text)
    return body


def test_every_reason_has_the_status_that_the_proto_promises() -> None:
    promised = re.findall(r"// (\d{3})\b[^=]*?ERROR_REASON_(\w+) =", PROTO.read_text())
    assert {reason: int(status) for status, reason in promised} == dict(HTTP_STATUS)
    known = error_reason_pb2.DESCRIPTOR.enum_types_by_name["ErrorReason"].values
    reasons = {value.name.removeprefix("ERROR_REASON_") for value in known}
    assert reasons - {"UNSPECIFIED"} == set(HTTP_STATUS)


def test_body_has_the_contracts_shape_and_no_empty_info() -> None:
    error = PoorError("The balance is below the stake")
    assert dict(present(error))["x-http-status"] == "402"
    assert body_of(error) == {
        "success": False,
        "code": "INSUFFICIENT_FUNDS",
        "detail": "The balance is below the stake",
    }


@pytest.mark.parametrize(
    ("fact", "expected"), [(0.5, 0.5), (3, 3), (True, True), ("iq", "iq"), (("sms", "email"), ["sms", "email"])]
)
def test_facts_keep_their_json_types(fact: Fact, expected: object) -> None:
    assert body_of(PoorError("no", fact=fact))["info"] == {"fact": expected}


def test_wait_is_also_a_header() -> None:
    metadata = dict(present(ThrottledError("wait", retry_after=600)))
    assert metadata["retry-after"] == "600"
    assert metadata["x-http-status"] == "429"
    assert "retry-after" not in dict(present(PoorError("no")))


def test_metadata_is_printable_ascii_whatever_the_words() -> None:
    for _, value in present(PoorError("Ungültig\r\n\x00 ✓", reason="naïve\n")):
        assert isinstance(value, str)
        assert re.fullmatch(r"[ -~]+", value)


def test_reason_that_the_proto_does_not_know_is_a_fault_of_ours() -> None:
    assert dict(present(StrayError("oops")))["x-http-status"] == "500"
