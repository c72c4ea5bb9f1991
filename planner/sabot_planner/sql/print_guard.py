"""The print guard: proof, for each query, that what the planner read is what DuckDB printed.

DuckDB parses both texts, the exported one and the one printed back from our tree, and serialises what it understood
(``json_serialize_sql``). Where the two differ in more than positions in the text, something was misread, and the
query must not be planned from that tree.
"""

from __future__ import annotations

import json
import re

_POSITION = re.compile(r'"query_location(?:_length)?":\d+,?')
_SUCCEEDED = '{"error":false'


def parser_error(exported_json: str) -> str | None:
    """What DuckDB's parser says against a text that DuckDB printed, such as that it is nested too deeply."""
    if exported_json.startswith(_SUCCEEDED):
        return None
    message: str = json.loads(exported_json).get("error_message", "")
    return message.partition("\n")[0].partition(". ")[0]


def same_meaning(exported_json: str, printed_json: str) -> bool:
    """Whether two ``json_serialize_sql`` texts describe one statement; false where either of them is an error.

    Inside a JSON string a quotation mark is escaped, so that a literal of the query is never taken for a position.
    """
    if not (exported_json.startswith(_SUCCEEDED) and printed_json.startswith(_SUCCEEDED)):
        return False
    return _POSITION.sub("", exported_json) == _POSITION.sub("", printed_json)
