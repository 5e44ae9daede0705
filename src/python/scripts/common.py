# What every script of Forebay begins with: the request, the answer, and how an
# exception in the user's code is described. Runs on CPython 3.8 and newer.
import json
import os
import sys
import traceback

# The directory of this script is of no use to the code that it loads.
if sys.path and os.path.abspath(sys.path[0]) == os.path.dirname(os.path.abspath(__file__)):
    del sys.path[0]

REQUEST_PATH, ANSWER_PATH = sys.argv[1:3]
with open(REQUEST_PATH, encoding="utf-8") as request_file:
    REQUEST = json.load(request_file)


def answer(document):
    # Beside, then renamed: an answer that is there is complete.
    partial = ANSWER_PATH + ".partial"
    # What UTF-8 has no form for (names of files that are not text) becomes a question mark.
    with open(partial, "w", encoding="utf-8", errors="replace") as answer_file:
        answer_file.write(json.dumps(document, ensure_ascii=False))
    os.replace(partial, ANSWER_PATH)


def is_inside(path, directory):
    return path.startswith(directory.rstrip(os.sep) + os.sep)


def interpreter_inside(directory):
    """Where the interpreter keeps its packages, if that is below `directory`: a .venv of the project."""
    places = {sys.prefix, sys.base_prefix, sys.exec_prefix}
    return [place for place in sorted(places) if is_inside(place, directory)]


def describe_exception(exception, directory):
    """Where in the user's own files an exception comes from, and what it says."""
    place, line = None, None
    if isinstance(exception, SyntaxError) and exception.filename:
        place, line = exception.filename, exception.lineno
        message = exception.msg
    else:
        message = str(exception)
        frames = traceback.extract_tb(exception.__traceback__)
        foreign = interpreter_inside(directory)
        for frame in frames:
            # The interpreter's own frozen modules have names such as <frozen os>.
            if frame.filename.startswith("<"):
                continue
            name = os.path.abspath(frame.filename)
            if is_inside(name, directory) and not any(is_inside(name, place) for place in foreign):
                place, line = name, frame.lineno
    return {
        "exception": type(exception).__name__,
        "message": message,
        "missing_module": getattr(exception, "name", None) if isinstance(exception, ModuleNotFoundError) else None,
        "file": place,
        "line": line,
    }


def encode(value):
    """A value with its Python type, which JSON alone would lose."""
    if value is None:
        return {"type": "none"}
    if isinstance(value, bool):
        return {"type": "bool", "value": value}
    if isinstance(value, str):
        return {"type": "str", "value": str.__str__(value)}
    if isinstance(value, int) and -(2 ** 63) <= value < 2 ** 63:
        return {"type": "int", "value": int(value)}
    if isinstance(value, float) and value - value == 0:
        return {"type": "float", "value": float(value)}
    if isinstance(value, (list, tuple)):
        return {"type": "list", "value": [encode(item) for item in value]}
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {"type": "dict", "value": [[str.__str__(key), encode(item)] for key, item in value.items()]}
    if isinstance(value, os.PathLike) and isinstance(os.fspath(value), str):
        return {"type": "str", "value": os.fspath(value)}
    return {"type": "other", "value": type(value).__name__}
