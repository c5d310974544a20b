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
    """Every call of `inner(...)` or `engine.generate(...)` in the gateway is the argument of an `aclosing` that is entered;
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
            if not (entered or passed_on):
                found.append(
                    source.at(node, f"{ast.unparse(node.func)}(...): write `async with aclosing(...) as chunks`")
                )
    return found


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
