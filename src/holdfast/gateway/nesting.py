"""How deep, and how many: a look at a body's JSON before it is decoded, so that no decoder recurses or builds a forest.

What is small enough to be harmless is told by its length and two counts; only the rest is looked at closely: strings fall
away first, in passes that run at the speed of C.
"""

import re
from itertools import accumulate

from holdfast.domain.fault import BadRequest

MARKS = b'"[]{},:'
OTHERS = bytes(byte for byte in range(256) if byte not in MARKS)
STEP = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1, ord('"'): 0}
STRING = re.compile(rb'"[^"]*+"')


def refuse_forest(body: bytes, depth_max: int, nodes_max: int) -> None:
    """Let pass what is nested at most `depth_max` deep and holds at most `nodes_max` values.

    Raises:
        BadRequest: it is deeper, or holds more.
    """
    if len(body) <= nodes_max and body.count(b"[") + body.count(b"{") <= depth_max:
        return
    bare = body.replace(rb"\\", b"").replace(rb"\"", b"") if b"\\" in body else body
    few = bare.count(b'"') <= 2 * nodes_max  # of strings
    marks = STRING.sub(b"", bare.translate(None, OTHERS)) if few else b""
    opened = marks.count(b"[") + marks.count(b"{")
    if not few or opened + marks.count(b",") + marks.count(b":") > nodes_max:
        why = f"The body holds more than {nodes_max} values; send fewer, or longer texts."
        raise BadRequest(why, code="invalid_json")
    if opened <= depth_max:
        return
    if max(accumulate(map(STEP.__getitem__, marks.translate(None, b",:")))) > depth_max:
        raise BadRequest(f"The body's JSON is nested more than {depth_max} deep; flatten it.", code="invalid_json")
