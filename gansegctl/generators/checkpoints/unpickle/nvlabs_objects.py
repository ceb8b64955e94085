"""Objects that NVlabs' files carry with their source text: the name, the state and a digest of the text are kept."""

from __future__ import annotations

import hashlib
from typing import Any

from gansegctl.generators.checkpoints.unpickle.inert import Inert
from gansegctl.generators.checkpoints.unpickle.limits import shown
from gansegctl.generators.checkpoints.unpickle.session import Session


def digest_of(session: Session, text: Any) -> str:
    """sha256 of a source text, "" where there is none; one text is digested once."""
    if not isinstance(text, str):
        return ""
    if text not in session.digests:
        session.digests[text] = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return session.digests[text]


def persistent_object(session: Session, meta: Any) -> Inert:
    """One object of `torch_utils.persistence`: its class name, its state and the digest of its source; no text."""
    if not isinstance(meta, dict) or not isinstance(meta.get("class_name"), str):
        raise TypeError("a persistent object without a class name")
    if not meta["class_name"].isidentifier() or len(meta["class_name"]) > session.limits.name_bytes:
        raise ValueError(f"a class named {shown(meta['class_name'])}")
    session.budget.take_memory(600)
    source = digest_of(session, meta.get("module_src"))
    return Inert(
        meta["class_name"], "persistent", state=meta.get("state"), source_sha256=source, understood=True, built=True
    )


def give_state(session: Session, target: Inert, state: Any) -> None:
    """Set the state of a fresh record, once. Of TensorFlow networks the source text is replaced by its digest."""
    if target.class_name == "Network" and isinstance(state, dict) and "build_module_src" in state:
        target.source_sha256 = digest_of(session, state["build_module_src"])
        state = {k: v for k, v in state.items() if k != "build_module_src"}
    target.state, target.built = state, True
