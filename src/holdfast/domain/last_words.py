"""What may be said of an exception: its kind and where it was raised, never its message.

Messages quote what was being worked on, and that is somebody's prompt. So logs, black boxes and events get kinds and places
only; the messages that are let through are listed here, and quote nothing of a request.
"""

HARMLESS = ("CUDA ", "NCCL ", "engine ")  # what a message begins with that tells of a device, or of how an engine ended
SHORT_OF_MEMORY = "out of memory"
DEPTH_MAX = 40


def told_of(error: BaseException) -> str:
    """One line: kind, the message if it is harmless, where."""
    places = _places(error)
    where = f" in {places[-1]}" if places else ""
    message = _message(error)
    return f"{type(error).__name__}{f': {message}' if message else ''}{where}"


def lines_of(error: BaseException) -> str:
    """The way of it, outermost call first, causes before what they caused. Ends with the one line."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    lines = [lines_of(before), "which led to"] if before is not None and before is not error else []
    lines += [f"  {place}" for place in _places(error)[-DEPTH_MAX:]]
    if isinstance(error, BaseExceptionGroup):
        lines += [lines_of(one) for one in error.exceptions]
    return "\n".join([*lines, told_of(error)])


def _message(error: BaseException) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"errno {error.errno}"
    if isinstance(error, MemoryError):
        return SHORT_OF_MEMORY
    text = str(error).partition("\n")[0]
    if text.startswith(HARMLESS):
        return text[:200]
    return SHORT_OF_MEMORY if SHORT_OF_MEMORY in text else ""


def _places(error: BaseException) -> list[str]:
    found, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        found.append(f"{code.co_name} ({code.co_filename.rpartition('/')[2]}:{trace.tb_lineno})")
        trace = trace.tb_next
    return found
