"""One request at a time: HTTP at the door, then the layers of stack.py, read downwards."""
