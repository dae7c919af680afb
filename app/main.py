"""The reviewers' page: log-in, language, and which page is shown.

Text from files, from people and from the model is shown with `st.text`, never as Markdown or
HTML: it could hold a link or a script.
"""

from __future__ import annotations

import streamlit as st

from app import dashboard, study, worklist
from app.login import signed_in
from app.session import settings, show_messages
from app.style import style
from app.words import CHOSEN, LANGUAGES, language, words
from medvlm.resources import resource_dir


def main() -> None:
    """Draws the page."""
    icon = str(resource_dir("app") / "icon.svg")
    st.set_page_config(
        page_title="medvlm", page_icon=icon, layout="wide", initial_sidebar_state="collapsed"
    )
    style()
    # Texts of the catalogue only: what stands here is HTML.
    notice = [words("notice")]
    if settings().oidc is None:
        notice.append(words("person.local"))
    st.html(f'<p class="notice" role="note">{"  ·  ".join(notice)}</p>')
    person = signed_in()
    with st.sidebar:
        _choose_language()
    if person is None:
        return
    pages = {
        "worklist": st.Page(worklist.page, title=words("nav.worklist"), default=True),
        "study": st.Page(study.page, title=words("nav.study"), url_path="study"),
        "dashboard": st.Page(dashboard.page, title=words("nav.dashboard"), url_path="dashboard"),
    }
    st.session_state["pages"] = pages
    with st.sidebar:
        st.text(person.name if not person.local else words("person.local"))
        st.caption(words(f"role.{person.role}"))
        if settings().oidc:
            st.button(words("logout.button"), on_click=st.logout)
    chosen = st.navigation(list(pages.values()), position="top")
    show_messages()
    chosen.run()


def _choose_language() -> None:
    known = list(LANGUAGES)
    st.selectbox(
        words("language"),
        known,
        index=known.index(language()),
        format_func=LANGUAGES.__getitem__,
        key=CHOSEN,
    )


main()
