"""Contrast in light, dark and on paper; motion only for those who want it; focus is seen."""

import re

import pytest

from evals.report.render import file

CSS = file("report.css")
TEXT = ("ink", "soft", "candidate", "reference", "humble", "other", "pass", "fail", "inconclusive",
        "lost", "gained", "copied")  # fmt: skip
FILLED = ("lost", "gained", "copied", "other")
DRAWN = ("candidate", "reference", "humble", "other", "inconclusive")


def schemes():
    """Scheme -> variable -> colour."""
    blocks = [re.findall(r"--([\w-]+):(#[0-9a-f]{3,6})", block) for block in re.findall(r":root\{([^}]*)\}", CSS)]
    light, dark, paper = (dict(block) for block in blocks)
    assert set(light) == set(dark) == set(paper)
    return {"light": light, "dark": dark, "paper": paper}


def contrast(one, other):
    """WCAG 2.2 contrast ratio of two hex colours."""
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def luminance(colour):
    digits = colour.lstrip("#")
    digits = "".join(2 * d for d in digits) if len(digits) == 3 else digits
    parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark", "paper"])
def test_text_has_a_contrast_of_four_and_a_half(scheme):
    colours = schemes()[scheme]
    for name in TEXT:
        for ground in ("paper", "panel"):
            assert contrast(colours[name], colours[ground]) >= 4.5, (name, ground)
    for name in FILLED:
        assert contrast(colours["onfill"], colours[name]) >= 4.5, name
    assert contrast(colours["ink"], colours["faint"]) >= 4.5
    assert contrast(colours["ink"], colours["swing"]) >= 4.5  # a number may stand on a bar


@pytest.mark.parametrize("scheme", ["light", "dark", "paper"])
def test_marks_and_lines_have_a_contrast_of_three(scheme):
    colours = schemes()[scheme]
    for name in DRAWN:
        assert contrast(colours[name], colours["paper"]) >= 3, name


def test_the_formula_is_the_published_one():
    assert contrast("#000", "#fff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


def test_motion_is_for_those_who_want_it_and_focus_is_seen():
    outside = re.sub(r"@media\(prefers-reduced-motion:no-preference\)\{.*", "", CSS)
    assert not re.search(r"transition|animation|scroll-behavior", outside)
    assert "transition" in CSS
    assert re.search(r":focus-visible\{outline:2\.5px solid", CSS)
    assert "outline:none" not in CSS
    assert "outline:0" not in CSS
