"""Run examples in their full form and keep their pictures for the guide, in few colours and so small.

python docs/example_pictures.py [EXAMPLE …]     (all by default; mnist and california want GVCORE_DATA_DIR)
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

DOCS = Path(__file__).resolve().parent
EXAMPLES = ["gradient_descent", "vanishing", "thousand_layers", "mnist", "california"]


def shrink(source: Path, target: Path) -> None:
    with Image.open(source) as picture:
        picture.convert("RGB").quantize(colors=64, dither=Image.Dither.NONE).save(target, optimize=True)
    print(f"{target} ({target.stat().st_size / 1000:.0f} kB)")


def main(names: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        for name in names or EXAMPLES:
            picture = Path(folder, f"{name}.png")
            script = DOCS.parent / "examples" / f"{name}.py"
            subprocess.run([sys.executable, str(script), "--plot", str(picture)], check=True)
            shrink(picture, DOCS / "pictures" / f"{name}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
