"""The gallery shows what its program makes, and stays small."""

from __future__ import annotations

import gallery
from docs.pages import ROOT


def test_the_page_is_that_of_the_program_and_every_picture_is_there():
    assert (ROOT / "docs/gallery.md").read_text(encoding="utf-8") == gallery.page(), "run: python website/gallery.py"
    shown = {gallery._name(part, picture) for part in gallery.PARTS for picture in part.pictures}
    assert {path.name for path in gallery.PICTURES.iterdir()} == shown
    assert sum(path.stat().st_size for path in gallery.PICTURES.iterdir()) <= gallery.LARGEST
