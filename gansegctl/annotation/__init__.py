"""Pictures out to people, masks back in."""

from __future__ import annotations

from gansegctl.annotation.bundle import BundleItem, read_masks, write_bundle

__all__ = ["BundleItem", "read_masks", "write_bundle"]
