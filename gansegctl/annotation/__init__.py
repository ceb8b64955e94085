"""Images out to people, masks back in."""

from __future__ import annotations

from gansegctl.annotation.bundle import BundleItem, check_bundle, write_bundle
from gansegctl.annotation.importer import PaintedMask, find_masks, read_masks

__all__ = ["BundleItem", "PaintedMask", "check_bundle", "find_masks", "read_masks", "write_bundle"]
