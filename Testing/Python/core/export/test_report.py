"""The report: says what was found, needs nothing else, runs nobody's code, shows the right body side."""

from __future__ import annotations

import base64
import hashlib
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from MedShieldLib.result import CheckResult, EvidenceItem, TargetInfo, Verdict
from MedShieldLib.volume import Segmentation, Structure, Volume
from MedShieldLib.words import CANNOT_ALARM, VERDICT_WORDS

pytest.importorskip("matplotlib", reason="needs the extra 'report'")
pytest.importorskip("jinja2", reason="needs the extra 'report'")
from PIL import Image  # noqa: E402

from MedShieldLib.export.planes import BodyAxes, outline_path, planes_of  # noqa: E402
from MedShieldLib.export.plots import strip_of  # noqa: E402
from MedShieldLib.export.report import render_report  # noqa: E402

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'{{ 7*7 }}"
VOID = {"meta", "br", "input", "link", "hr", "img"}
# Columns are the directions of i, j and k in LPS.
ORIENTATIONS = {
    "axial": (1, 0, 0, 0, 1, 0, 0, 0, 1),
    "RAS": (-1, 0, 0, 0, -1, 0, 0, 0, 1),
    "sagittal": (0, 0, 1, 1, 0, 0, 0, -1, 0),
    "coronal": (1, 0, 0, 0, 0, 1, 0, -1, 0),
    "oblique": (0.96, -0.224, 0.168, 0.28, 0.768, -0.576, 0.0, 0.6, 0.8),
}


class Page(HTMLParser):
    """All tags and attributes; fails on a tag that is not closed or closed twice."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, f"</{tag}> inside {self._open[-3:]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    def words(self) -> str:
        return " ".join(" ".join(self.text).split())

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def html(attacked: CheckResult) -> str:
    return render_report(attacked)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


@pytest.mark.parametrize("verdict", Verdict)
def test_each_verdict_is_said_in_its_own_words(make_result, verdict: Verdict) -> None:
    page = Page(render_report(make_result(verdict)))
    words = page.words()
    for other, said in VERDICT_WORDS.items():
        assert (said.title in words) == (said.advice in words) == (other is verdict)
    assert any(verdict.value in (a.get("class") or "").split() for a in page.of("section"))
    assert "Not for clinical use" in words


def test_calibration_that_can_never_alarm_is_the_headline_and_not_green(make_result) -> None:
    clean = make_result(Verdict.CLEAN)
    small = replace(clean, calibration=replace(clean.calibration, n_scores=18))
    page = Page(render_report(small))
    words = page.words()
    assert CANNOT_ALARM.title in words and VERDICT_WORDS[Verdict.CLEAN].title not in words
    assert not any("clean" in (a.get("class") or "").split() for a in page.of("section"))
    enough = replace(clean, calibration=replace(clean.calibration, n_scores=19))
    assert CANNOT_ALARM.title not in render_report(enough)


def test_figures_notes_and_provenance_are_there(page: Page, attacked: CheckResult) -> None:
    words = page.words()
    for text in ("p = 0.0042", "p = 0.34", "p ≤ 0.05", "Fewer than 1 in 100", *attacked.notes):
        assert text in words
    for row in attacked.structures:
        for figure in (row.name, f"{row.dice:.3f}", f"{row.original_ml:.1f}", f"{row.defended_ml:.1f}"):
            assert figure in words
    for hashed in (attacked.input_sha256, attacked.target.sha256, attacked.calibration.sha256):
        assert hashed in words
    assert "/scans/MNI152 T1.nii.gz" in words and "MedShield 0.1.0" in words and "numpy" in words


def test_who_gave_a_second_opinion_is_said_and_nothing_where_nobody_did(
    attacked: CheckResult, html: str
) -> None:
    asked = render_report(replace(attacked, second=TargetInfo("deepbet-coarse", "cd" * 32)))
    assert "Second opinion" in asked and "deepbet-coarse" in asked
    assert "Second opinion" not in html


def test_nothing_is_fetched(html: str, page: Page) -> None:
    for tag, attributes in page.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action"):
            address = attributes.get(name)
            assert address is None or address.startswith(("data:image/png;base64,", "#")), (tag, address)
    assert not page.of("link") and "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    policy = next(a["content"] for a in page.of("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None and policy.startswith("default-src 'none'; img-src data:;")


def test_only_our_script_may_run(html: str) -> None:
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in html


def test_names_from_files_are_text_and_not_html(attacked: CheckResult) -> None:
    structures = (Structure(1, HOSTILE, (1, 0, 0)), Structure(2, "ok", (0, 1, 0)))
    item = EvidenceItem(HOSTILE, "instability", 1.0, 50.0, np.arange(3.0))
    evil = replace(
        attacked,
        volume=replace(attacked.volume, source=Path("/scans") / HOSTILE.replace("/", "")),
        original=Segmentation(attacked.original.volume, structures),
        structures=tuple(replace(row, name=HOSTILE) for row in attacked.structures),
        evidence=(item,),
        notes=(HOSTILE,),
        timings_s={HOSTILE: 1.0},
        target=replace(attacked.target, name=HOSTILE),
        calibration=replace(attacked.calibration, name=HOSTILE, sha256=HOSTILE),
        version=HOSTILE,
    )
    page = Page(render_report(evil))
    assert len(page.of("script")) == 1 and not page.of("img")
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert page.words().count("{{ 7*7 }}") > 5


def test_ids_are_unique_and_used_images_exist(page: Page) -> None:
    identifiers = [a["id"] for _, a in page.tags if a.get("id")]
    assert len(identifiers) == len(set(identifiers))
    used = {str(a["href"])[1:] for a in page.of("use") if a.get("href")}
    assert used and used <= set(identifiers)


def test_pictures_and_controls_have_words_for_those_who_do_not_see_them(page: Page) -> None:
    for attributes in page.of("svg"):
        hidden = attributes.get("aria-hidden") == "true"
        drawn_inside = (
            "aria-label" not in attributes and attributes.get("role") is None and "xmlns" in str(attributes)
        )
        assert hidden or attributes.get("aria-label") or drawn_inside
    assert all(a.get("aria-label") for a in page.of("input") if a.get("type") == "range")


def test_one_slice_of_each_plane_shows_without_scripts(page: Page) -> None:
    frames = [a for a in page.of("div") if a.get("class") == "frame"]
    assert sum("hidden" not in a for a in frames) == 3 < len(frames)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(scheme: str) -> None:
    """WCAG 2.2: at least 4.5 for every pair of text and background in use."""
    style = (Path(__file__).parents[4] / "MedShieldLib" / "export" / "report.css").read_text(encoding="utf-8")
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in style.split("@media")[:2])
    colors = light if scheme == "light" else dark
    pairs = [("ink", "card"), ("soft", "card"), ("soft", "page"), ("bad", "page")]
    pairs += [(tone, f"{tone}-back") for tone in ("good", "warn", "bad")]
    pairs += [("ink", f"{tone}-back") for tone in ("good", "warn", "bad")]
    for text, back in pairs:
        bright, dim = sorted((_luminance(colors[name]) for name in (text, back)), reverse=True)
        assert (bright + 0.05) / (dim + 0.05) >= 4.5, (text, back)


def _luminance(color: str) -> float:
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    parts = [int(digits[n : n + 2], 16) / 255 for n in (0, 2, 4)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def _marked(direction: tuple[float, ...]) -> Volume:
    """Bright where the body is to the left, at the back and at the top, by LPS position."""
    shape = (20, 22, 24)
    volume = Volume(np.zeros(shape, np.float32), (1.0, 1.2, 1.4), (3.0, -4.0, 5.0), direction)
    kji = np.indices(shape)
    middle = volume.affine @ [*(np.array(shape[::-1]) - 1) / 2, 1]
    lps = (
        np.einsum("ab,bkji->akji", volume.affine[:3, :3], kji[::-1]) + volume.affine[:3, 3, None, None, None]
    )
    return volume.with_voxels((lps > middle[:3, None, None, None]).all(axis=0).astype(np.float32))


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_left_back_and_top_are_where_radiologists_expect_them(name: str) -> None:
    volume = _marked(ORIENTATIONS[name])
    axes = BodyAxes(volume)
    view = axes.view(volume.voxels)  # (S, P, L)
    half = [n // 2 for n in view.shape]
    corners = {
        (s, p, l): view[_half(s, half[0]), _half(p, half[1]), _half(l, half[2])].mean()
        for s in (0, 1)
        for p in (0, 1)
        for l in (0, 1)  # noqa: E741
    }
    assert max(corners, key=lambda corner: corners[corner]) == (1, 1, 1)
    assert (axes.tilt_degrees > 20) == (name == "oblique")


def _half(upper: int, middle: int) -> slice:
    return slice(middle, None) if upper else slice(None, middle)


@pytest.mark.parametrize("name", ORIENTATIONS)
def test_pictures_carry_the_letters_of_their_sides(attacked: CheckResult, name: str) -> None:
    volume = _marked(ORIENTATIONS[name])
    labels = volume.voxels.astype(np.uint8)
    segmentation = Segmentation(volume.with_voxels(labels), (Structure(1, "corner", (1, 0, 0)),))
    result = replace(attacked, volume=volume, original=segmentation, defended=segmentation, heatmap=volume)
    for plane in planes_of(result):
        picture = sum(_pixels(slice_.image).astype(float) for slice_ in plane.slices)
        rows, columns = picture.shape
        left_right = picture[:, columns // 2 :].sum() - picture[:, : columns // 2].sum()
        top_bottom = picture[: rows // 2].sum() - picture[rows // 2 :].sum()
        left, right, top, bottom = plane.edges
        assert (right if left_right > 0 else left) in "LP" and {left, right} in ({"L", "R"}, {"A", "P"})
        assert (top if top_bottom > 0 else bottom) in "SP"


def _pixels(uri: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_positions_are_millimetres_from_the_origin(attacked: CheckResult) -> None:
    volume = Volume(np.ones((5, 5, 5), np.float32), (2.0, 2.0, 4.0), (-10.0, 6.0, -8.0))
    axes = BodyAxes(volume)
    assert [axes.position(0, k, 5) for k in (0, 2, 4)] == ["I 8 mm", "S 0 mm", "S 8 mm"]
    assert axes.position(1, 0, 5) == "P 6 mm" and axes.position(2, 0, 5) == "R 10 mm"


def test_slices_keep_their_shape_in_millimetres(attacked: CheckResult) -> None:
    voxels = np.zeros((20, 400, 60), np.float32)
    voxels[5] = 1
    volume = Volume(voxels, (0.5, 0.5, 5.0))
    segmentation = Segmentation(volume.with_voxels(voxels.astype(np.uint8)), attacked.original.structures)
    result = replace(attacked, volume=volume, original=segmentation, defended=segmentation, heatmap=volume)
    axial, coronal, sagittal = planes_of(result)
    assert (axial.size_mm, coronal.size_mm, sagittal.size_mm) == ((30, 200), (30, 100), (200, 100))
    assert axial.size_px == (60, 200), "long sides are drawn with fewer pixels"
    assert _pixels(axial.slices[0].image).shape == (200, 60)


def test_the_first_look_is_at_the_largest_disagreement(attacked: CheckResult) -> None:
    differs = attacked.original.labels != attacked.defended.labels
    axial, coronal, _ = planes_of(attacked)
    key = axial.slices[axial.key]
    assert key.number - 1 == differs.sum(axis=(1, 2)).argmax() and axial.why == "largest disagreement"
    assert key.differs_ml == pytest.approx(differs.sum(axis=(1, 2)).max() * attacked.volume.voxel_ml)
    steps = np.diff([slice_.number for slice_ in coronal.slices])
    assert len(set(steps.tolist())) == 1 and 8 <= len(coronal.slices) <= 16
    assert len(coronal.profile_ml) == coronal.slices[-1].number - coronal.slices[0].number + 1


def test_a_clean_scan_is_opened_where_the_heatmap_is_highest(make_result) -> None:
    clean = make_result(Verdict.CLEAN)
    heat = np.zeros(clean.volume.voxels.shape, np.float32)
    heat[20, 30, 25] = 0.4
    axial, *_ = planes_of(replace(clean, heatmap=clean.volume.with_voxels(heat)))
    assert (axial.slices[axial.key].number, axial.why) == (21, "highest suspicion")
    axial, *_ = planes_of(clean)
    assert axial.why == "middle" and axial.slices[axial.key].original


def test_outlines_run_around_the_voxels() -> None:
    mask = np.zeros((6, 8), bool)
    mask[2:4, 0:3] = True
    numbers = [int(n) for n in re.findall(r"-?\d+", outline_path(mask))]
    points = np.cumsum(np.reshape(numbers, (-1, 2)), axis=0)
    assert (points.min(0).tolist(), points.max(0).tolist()) == ([0, 4], [6, 8])
    assert outline_path(np.zeros((4, 4), bool)) == ""
    mask[2, 6] = True
    assert outline_path(mask).count("M") == outline_path(mask).count("z") == 2


def test_noise_does_not_blow_the_report_up(attacked: CheckResult) -> None:
    rng = np.random.default_rng(0)
    volume = Volume(rng.normal(size=(64, 64, 64)).astype(np.float32))
    labels = rng.integers(0, 7, volume.voxels.shape).astype(np.uint8)
    structures = tuple(Structure(n, f"s{n}", (1, 0, 0)) for n in range(1, 7))
    noise = Segmentation(volume.with_voxels(labels), structures)
    other = Segmentation(volume.with_voxels(labels[::-1]), structures)
    result = replace(attacked, volume=volume, original=noise, defended=other, heatmap=volume)
    assert len(render_report(result)) < 8_000_000


def test_a_tilted_scan_says_so(attacked: CheckResult) -> None:
    def turned(volume: Volume) -> Volume:
        return replace(volume, direction=ORIENTATIONS["oblique"])

    result = replace(
        attacked,
        volume=turned(attacked.volume),
        heatmap=turned(attacked.heatmap),
        original=replace(attacked.original, volume=turned(attacked.original.volume)),
        defended=replace(attacked.defended, volume=turned(attacked.defended.volume)),
    )
    assert "tilted by 40 degrees" in Page(render_report(result)).words()


def test_strips_mark_the_scan_among_the_clean_values() -> None:
    clean = np.linspace(1, 2, 50)
    strip = strip_of(EvidenceItem("e", "novelty", 3.0, 100.0, clean))
    assert strip.mark is not None and strip.mark > 90
    assert max(x + width for x, width, _ in strip.bars) < 60
    assert strip.typical == pytest.approx((1.05, 1.95))
    lonely = strip_of(EvidenceItem("e", "novelty", float("nan"), float("nan"), np.array([])))
    assert lonely.mark is None and not lonely.bars and lonely.typical is None


def test_the_style_of_the_plot_stays_in_the_plot(html: str) -> None:
    assert html.count("<style") == 1
