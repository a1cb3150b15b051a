"""What became of each test, read from what test runners write: name to "passed", "failed" or "skipped"."""

import json
import re
import xml.etree.ElementTree

WORDS = {"ok": "passed", "FAIL": "failed", "ERROR": "failed", "FAILED": "failed", "ignored": "skipped"}


def of_junit(text):
    found = {}
    for case in xml.etree.ElementTree.fromstring(text).iter("testcase"):
        kinds = {child.tag for child in case}
        came = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        name = f"{case.get('classname')}.{case.get('name')}"
        # An error while tearing down is a case of its own, by the same name.
        found[name] = "failed" if "failed" in (came, found.get(name)) else came
    return found


def of_cargo(text):
    found = re.findall(r"^test (\S+)(?: - should panic)? \.\.\. (ok|FAILED|ignored)", text, re.M)
    return {name: WORDS[word] for name, word in found}


def of_go(text):
    found = {}
    for line in text.splitlines():
        if not line.startswith("{"):
            continue
        event = json.loads(line)
        if event.get("Test") and event["Action"] in ("pass", "fail", "skip"):
            words = {"pass": "passed", "fail": "failed", "skip": "skipped"}
            found[f"{event['Package']}.{event['Test']}"] = words[event["Action"]]
        elif event["Action"] == "run":
            # One that never ends has no other event.
            found.setdefault(f"{event['Package']}.{event['Test']}", "failed")
    return found


def of_unittest(text):
    """Of `unittest -v` and Django's runner: the name, perhaps a line of what it is about, and a word."""
    found, name = {}, None
    for line in text.splitlines():
        begun = re.match(r"(\w+) \(([\w.<>]+)\)", line)
        if begun:
            name = begun[2] if begun[2].endswith("." + begun[1]) else f"{begun[2]}.{begun[1]}"
        ended = re.search(r"(?:^|\.\.\. ?)(?:.*\s)?(ok|FAIL|ERROR|skipped .*|expected failure|unexpected success)$", line)
        if ended and name:
            word = ended[1]
            found[name] = WORDS.get(word, "skipped" if word.startswith("skipped") else "passed")
            name = None
    return found


def of_lines(text):
    """Of our own programs: `what => what came of it`, compared as they are."""
    found, section = {}, ""
    for line in text.splitlines():
        label, sign, came = line.partition(" => ")
        if not sign:
            continue
        if label == "part":
            section = came
            continue
        label, number = f"{section}: {label}", 1
        while (f"{label} ({number})" if number > 1 else label) in found:
            number += 1
        found[f"{label} ({number})" if number > 1 else label] = came
    return found
