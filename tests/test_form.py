"""Multipart forms: files as another library wrote them come out unchanged, whatever is in them; others are refused."""

import re
from contextlib import suppress
from time import process_time

import httpx
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from fsr_serve.http.form import MOST_FIELDS, MOST_HEAD, MalformedFormError, files_of

TRICKY = st.lists(
    st.sampled_from(
        [b"\r\n", b"--", b"--x", b"\r\n--x", b"\r\n--xy", b" ", b"\r\n\r\n", b"--x--", b"\n", b"\x00", b"a"]
    )
).map(b"".join)
HEAD = b'\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'


@given(st.lists(TRICKY, max_size=4), st.lists(st.text(max_size=5), max_size=3))
def test_files_come_out_as_they_went_in_and_fields_do_not(contents, fields):
    for content in contents:  # in which x is a boundary indeed
        assume(not re.search(rb"\r\n--x(--|[ \t]*\r\n)", b"\r\n" + content + b"\r\n"))
    sent = httpx.Request(
        "POST",
        "http://server",
        headers={"Content-Type": "multipart/form-data; boundary=x"},
        files=[("f", ('name; "ü"', content)) for content in contents] or {"f": (None, "")},
        data={f"field {index}": f"[{text}]" for index, text in enumerate(fields)},
    )
    assert list(files_of(sent.read(), b"x")) == contents


@pytest.mark.parametrize(
    ("body", "files"),
    [
        (b"a preamble\r\n--x" + HEAD + b"one\r\n--x--\r\nan epilogue", [b"one"]),
        (b"--x \t " + HEAD + b"one\r\n--x--", [b"one"]),
        (b"--x" + HEAD + b"\r\n--x" + HEAD + b"\r\n--x--", [b"", b""]),
        (b"--x\r\ncontent-disposition:form-data;filename=f;name=f\r\nA: b\r\n\r\none\r\n--x--", [b"one"]),
        (b"--x\r\nContent-Disposition: form-data; name=f; filename*=UTF-8''%e2%82%ac\r\n\r\none\r\n--x--", []),
        (b'--x\r\nContent-Disposition: form-data; name="a filename=f"\r\n\r\none\r\n--x--', []),
        (b"--x\r\n\r\nwithout headers\r\n--x--", []),
        (b"--x--", []),
    ],
    ids=[
        "around",
        "padding",
        "empty",
        "plain names",
        "name that RFC 7578 forbids",
        "no filename",
        "no headers",
        "no parts",
    ],
)
def test_forms_as_the_standards_allow_them(body, files):
    assert list(files_of(body, b"x")) == files


@pytest.mark.parametrize(
    ("body", "boundary", "message"),
    [
        (b"--x--", b"", "the boundary in Content-Type has 0 bytes; expected 1 to 70"),
        (b"--x--", b"x" * 71, "the boundary in Content-Type has 71 bytes"),
        (b"", b"x", "closing boundary is missing"),
        (b"--x" + HEAD + b"one", b"x", "closing boundary is missing"),
        (b"--x" + HEAD + b"one\r\n--xy--", b"x", "closing boundary is missing"),
        (b"--x\r\nContent-Disposition: form-data\r\n--x--", b"x", "has no headers"),
        (b"--x\r\nA: " + b"b" * MOST_HEAD + b"\r\n\r\n\r\n--x--", b"x", "more than 4096 bytes"),
        (b"--x\r\n\r\na\r\n" * (MOST_FIELDS + 1) + b"--x--", b"x", "more than 1000 parts without a filename"),
    ],
)
def test_what_is_no_form_is_refused(body, boundary, message):
    with pytest.raises(MalformedFormError, match=message):
        list(files_of(body, boundary))


@given(st.binary(max_size=200) | TRICKY)
def test_any_bytes_are_a_form_or_refused_as_none(body):
    for whole in (body, b"--x" + HEAD + body, b"--x\r\nContent-Disposition: " + body + b"\r\n\r\n\r\n--x--"):
        with suppress(MalformedFormError):
            assert sum(map(len, files_of(whole, b"x"))) <= len(whole)


@pytest.mark.parametrize("filling", [b" ", b"\r\n--x", b"\r\n--x ", b"\r\n--xz", b"\r\n", b"--x"])
def test_hostile_filling_costs_no_more_than_its_length(filling):
    """Quadratic work on these 8 MB would take hours."""
    body = b"--x" + filling * (8_000_000 // len(filling))
    before = process_time()
    with suppress(MalformedFormError):
        list(files_of(body, b"x"))
    assert process_time() - before < 60
