"""Two rules for code that relays streams.

(a) `inner(...)` is always closed by the layer that opened it: without `aclosing`, a client that hangs up leaks the replica's
slot until garbage collection. (b) Never `yield` inside a timeout scope or a task group: the scope would then time whoever
reads us, and be left in another task's hands when the reader goes away.
"""

import ast

from house.source import Source, dotted

SCOPES = ("timeout", "timeout_at", "TaskGroup", "fail_after", "move_on_after", "CancelScope", "create_task_group")
OPENERS = ("inner", "generate")


def unclosed_streams(source: Source) -> list[str]:
    """Every call of `inner(...)` or `engine.generate(...)` in the gateway is the argument of an `aclosing` that is entered, or is
    given a name and closed by it in the `finally` of the very next statement, which is the same at a tenth of the cost;
    a layer that only looks at the request may hand `inner(...)` on as it is."""
    if source.room != "gateway":
        return []
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and dotted(node.func).split(".")[-1] in OPENERS:
            closer = source.parents.get(node)
            entered = (
                isinstance(closer, ast.Call)
                and dotted(closer.func).split(".")[-1] == "aclosing"
                and _is_entered(source, closer)
            )
            passed_on = isinstance(closer, ast.Return) and dotted(node.func) == "inner"  # whoever called closes it
            if not (entered or passed_on or _is_closed_next(source, closer)):
                found.append(
                    source.at(node, f"{ast.unparse(node.func)}(...): write `async with aclosing(...) as chunks`")
                )
    return found


def _is_closed_next(source: Source, opened: ast.AST | None) -> bool:
    """`chunks = inner(...)`, and nothing between it and `try: ... finally: await chunks.aclose()`."""
    if not (isinstance(opened, ast.Assign) and len(opened.targets) == 1 and isinstance(opened.targets[0], ast.Name)):
        return False
    name, above = opened.targets[0].id, source.parents.get(opened)
    for field in ("body", "orelse", "handlers", "finalbody"):
        block = getattr(above, field, [])
        if isinstance(block, list) and opened in block:
            following = block[block.index(opened) + 1 :][:1]
            return [ast.unparse(end) for one in following if isinstance(one, ast.Try) for end in one.finalbody[:1]] == [
                f"await {name}.aclose()"
            ]
    return False


def _is_entered(source: Source, closer: ast.AST) -> bool:
    above = source.parents.get(closer)
    if isinstance(above, ast.withitem):
        return isinstance(source.parents.get(above), ast.AsyncWith)
    return isinstance(above, ast.Call) and dotted(above.func).endswith(".enter_async_context")


def yields_in_scopes(source: Source) -> list[str]:
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Yield | ast.YieldFrom):
            for above in source.ancestors(node):
                if isinstance(above, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                    break
                if isinstance(above, ast.With | ast.AsyncWith) and any(
                    _is_scope(item.context_expr) for item in above.items
                ):
                    found.append(
                        source.at(
                            node, "a yield inside a timeout scope or task group: put the scope around each __anext__"
                        )
                    )
    return found


def _is_scope(expression: ast.expr) -> bool:
    return isinstance(expression, ast.Call) and dotted(expression.func).split(".")[-1] in SCOPES
