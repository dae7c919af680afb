"""What was done with the open study: its signed versions, and every action."""

from __future__ import annotations

import streamlit as st

from app.images import Opened
from app.session import store
from app.words import bare, catalogue, clock, language
from medvlm.review.history import history
from medvlm.review.signing import versions


def panel(study: Opened) -> None:
    """Draws the history, the newest on top."""
    for signed in reversed(versions(store(), study.row.id)):
        last = signed.addenda[-1] if signed.addenda else signed
        st.text(
            bare(
                "history.version",
                version=signed.version,
                at=clock(last.signed_at),
                name=last.signed_by,
                attestation=last.attestation,
            )
        )
    done = history(store(), study.row.id)
    if not done:
        st.text(bare("history.none"))
    for entry in done:
        key = f"action.{entry.action}"
        action = bare(key) if key in catalogue(language()) else entry.action
        name = entry.name or bare("history.software")
        st.text(bare("history.line", at=clock(entry.at), name=name, action=action))
