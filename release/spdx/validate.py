"""Reads an SPDX document in JSON, and says what is wrong with it: against the specification of SPDX 2.3 and its list of
licences, and each field that the specification does not have."""

import json
import sys

from spdx_tools.spdx.jsonschema.document_converter import DocumentConverter
from spdx_tools.spdx.parser.error import SPDXParsingError
from spdx_tools.spdx.parser.json import json_parser
from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document


def lost(given, understood, where=""):
    """Yields what is in the document and was not understood."""
    if isinstance(given, dict):
        for name, value in given.items():
            if not isinstance(understood, dict) or name not in understood:
                yield f"{where}/{name}: SPDX does not know it"
            else:
                yield from lost(value, understood[name], f"{where}/{name}")
    elif isinstance(given, list):
        if not isinstance(understood, list) or len(given) != len(understood):
            yield f"{where}: not understood"
            return
        for i, value in enumerate(given):
            yield from lost(value, understood[i], f"{where}/{i}")
    elif given != understood and (given, understood) != ("PACKAGE-MANAGER", "PACKAGE_MANAGER"):  # both are right
        yield f"{where}: {given!r} was understood as {understood!r}"


try:
    document = json_parser.parse_from_file(sys.argv[1])
except SPDXParsingError as error:
    sys.exit("\n".join(error.get_messages()))
with open(sys.argv[1], encoding="utf-8") as file:
    given = json.load(file)
faults = [message.validation_message for message in validate_full_spdx_document(document)]
faults += lost(given, DocumentConverter().convert(document))
sys.exit("\n".join(faults) or None)
