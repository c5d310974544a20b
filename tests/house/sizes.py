"""How big a thing may grow. The limits come from the tails of good houses (h11, httpx, starlette): guard the tail."""

import ast

from house.source import Source, dotted

FUNCTION_LINES_MAX = 60
MODULE_LINES_MAX = 400
PARAMETERS_MAX = 6
PUBLIC_METHODS_MAX = 12

Function = ast.FunctionDef | ast.AsyncFunctionDef


def long_modules(source: Source) -> list[str]:
    lines = source.text.count("\n")
    if lines <= MODULE_LINES_MAX:
        return []
    return [source.at(1, f"{lines} lines, the limit is {MODULE_LINES_MAX}: divide it where the interface is smallest")]


def long_functions(source: Source) -> list[str]:
    """A function inside another counts for itself, not for the one around it: a layer is three nested defs."""
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, Function):
            inner = [child for child in ast.walk(node) if isinstance(child, Function) and child is not node]
            own = _span(node) - sum(_span(child) for child in inner if _owner(source, child) is node)
            if own > FUNCTION_LINES_MAX:
                found.append(source.at(node, f"{node.name} has {own} lines, the limit is {FUNCTION_LINES_MAX}"))
    return found


def many_parameters(source: Source) -> list[str]:
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, Function):
            spec = node.args
            names = [argument.arg for argument in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]
            count = len(names) - (names[:1] in (["self"], ["cls"]))
            if count > PARAMETERS_MAX:
                found.append(
                    source.at(
                        node, f"{node.name} takes {count} parameters, the limit is {PARAMETERS_MAX}: hand in a struct"
                    )
                )
    return found


def many_methods(source: Source) -> list[str]:
    """What a class can be asked to do. Properties are what it is, and do not count."""
    found = []
    for node in ast.walk(source.tree):
        if isinstance(node, ast.ClassDef):
            public = [item for item in node.body if isinstance(item, Function) and not item.name.startswith("_")]
            public = [item for item in public if "property" not in map(dotted, item.decorator_list)]
            if len(public) > PUBLIC_METHODS_MAX:
                found.append(
                    source.at(node, f"{node.name} has {len(public)} public methods, the limit is {PUBLIC_METHODS_MAX}")
                )
    return found


def _span(node: Function) -> int:
    return (node.end_lineno or node.lineno) - node.lineno + 1


def _owner(source: Source, node: ast.AST) -> ast.AST | None:
    return next((above for above in source.ancestors(node) if isinstance(above, Function)), None)
