"""Takes the screenshots of the panel and of the comparison views, from a real check by the real worker.

    python Resources/make_screenshots.py [VOLUME]     VOLUME: a head that was attacked; default: the sample

The panel is drawn by the stand-in application of Testing/harness, the views by Slicer's displayable managers.
"""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SCREENSHOTS = REPOSITORY / "Resources" / "Screenshots"
SAMPLE = REPOSITORY / "MedShield" / "Resources" / "SampleData" / "MedShield-attacked.nii.gz"
sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "Testing")]

import harness  # noqa: E402


def main(volume: Path, calibration: str = "", target: str = "") -> None:
    """Check a volume in the panel, and save what it shows."""
    app = harness.boot()
    _module, panel, holder = harness.load_module(harness.MODULE)
    import slicer
    from harness.views import ComparisonScreen

    from MedShieldLib.slicer.nodes import add_volume
    from MedShieldLib.volume import Volume

    add_volume(slicer.mrmlScene, Volume.read(volume), volume.name.partition(".")[0])
    panel.ui.calibrationPathLineEdit.currentPath = calibration
    panel.ui.targetPathLineEdit.currentPath = target
    panel.ui.showHeatmapCheckBox.checked = False
    panel.ui.checkButton.click()
    harness.finish(panel)
    if panel.session.result is None:
        raise SystemExit(panel.ui.logText.toPlainText())
    SCREENSHOTS.mkdir(exist_ok=True)
    screen = ComparisonScreen(panel.session.views, (1200, 720))
    panel.session.jump()
    screen.image(panel.session.result.node("spectrum")).save(str(SCREENSHOTS / "comparison.png"))
    panel.ui.showHeatmapCheckBox.checked = True
    screen.image().save(str(SCREENSHOTS / "heatmap.png"))
    holder.resize(430, 1060)
    holder.show()
    app.processEvents()
    holder.grab().save(str(SCREENSHOTS / "panel.png"))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else SAMPLE, *sys.argv[2:4])
