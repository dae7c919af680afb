"""How the page looks: our own rules only, no text from files or the model."""

from __future__ import annotations

import streamlit as st

_CSS = """
<style>
.block-container { padding: 4.2rem 1rem 1rem 1rem; max-width: none; }
.notice { margin: 0; padding: .2rem .6rem; font-size: .8rem; border: 1px solid #b58900;
  border-radius: .25rem; color: inherit; }
[data-testid="stText"] { white-space: pre-wrap; font-family: inherit; }
[class*="st-key-sentence-"] { border-left: .35rem solid #6b7280; padding: .35rem .6rem;
  border-radius: .25rem; }
[class*="st-key-sentence-unresolved-"] { border-left: .35rem dashed #b58900; }
[class*="st-key-sentence-accepted-"] { border-left-color: #2563eb; }
[class*="st-key-sentence-edited-"] { border-left: .35rem double #7c3aed; }
[class*="st-key-sentence-added-"] { border-left: .35rem double #15803d; }
[class*="st-key-sentence-rejected-"] [data-testid="stText"]:first-of-type
  { text-decoration: line-through; opacity: .75; }
.st-key-panel { max-height: calc(100vh - 11.5rem); overflow-y: auto; padding-right: .5rem; }
.st-key-panel [data-testid="stVerticalBlock"] { gap: .6rem; }
[class*="st-key-sentence-"] [data-testid="stVerticalBlock"],
[class*="st-key-sentence-"] { gap: .25rem !important; }
[class*="st-key-sentence-"] button, [class*="st-key-row-"] button
  { min-height: 1.9rem; padding: .1rem .6rem; }
[data-testid="stMain"] h3 { font-size: 1.1rem; padding: .3rem 0; }
[class*="-chosen"] { outline: 2px solid currentColor; outline-offset: 1px; }
[class*="st-key-urgent-"] { border: 2px solid #dc2626; border-radius: .25rem; padding: .5rem; }
[class*="st-key-row-"] { border-bottom: 1px solid #8883; padding: .15rem 0; }
</style>
"""


def style() -> None:
    """Puts the rules into the page."""
    st.html(_CSS)
