#!/usr/bin/env python3
"""Writes expected.json: what Python's jinja2 makes of every template and every snippet.

    pip install jinja2
    python3 tests/golden/templates/regenerate.py

jinja2 is set up as transformers sets it up for chat templates. A case that Python refuses is
recorded as {"error": MESSAGE}; quern must refuse it too.
"""
import json
import pathlib

import jinja2
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = pathlib.Path(__file__).parent


class Generation(Extension):
    """`{% generation %}`: marks the assistant's text, which only training needs."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_render"), [], [], body).set_lineno(line)

    def _render(self, caller):
        return caller()


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda fmt: ""  # the clock is tested in C++
    return env


def render(env, source, context):
    try:
        return {"text": env.from_string(source).render(**context)}
    except Exception as error:  # whatever Python raises is a refusal
        return {"error": f"{type(error).__name__}: {error}"}


def main():
    env = environment()
    conversations = json.loads((HERE / "conversations.json").read_text())
    snippets = json.loads((HERE / "snippets.json").read_text())
    expected = {"templates": {}, "snippets": []}
    for path in sorted((HERE / "sources").glob("*.jinja")):
        source = path.read_bytes().decode()
        expected["templates"][path.stem] = {
            name: render(env, source, context) for name, context in conversations.items()}
    for source in snippets["sources"]:
        expected["snippets"].append(render(env, source, snippets["context"]))
    (HERE / "expected.json").write_text(json.dumps(expected, ensure_ascii=False, indent=1) + "\n")
    counts = [len(expected["templates"]) * len(conversations), len(expected["snippets"])]
    print(f"{counts[0]} renderings of templates, {counts[1]} of snippets")


if __name__ == "__main__":
    main()
