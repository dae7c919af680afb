"""The page's server: Streamlit's app, the viewer's pixels, and the desk's processes beside it.

`medvlm app` runs it with `streamlit run`; nothing here imports torch.
"""

from __future__ import annotations

import importlib.util
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from medvlm.config.desk import Oidc, desk_config
from medvlm.desk.csp import content_security_policy
from medvlm.desk.discreet import be_discreet
from medvlm.desk.service import Service
from medvlm.desk.token import TOKENS
from medvlm.desk.web import Guard, pixel_routes
from medvlm.review.store import Store, open_store

HERE = Path(__file__).resolve().parent
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")


def _name_the_package() -> None:
    """Lets the pages import each other as `app.*`: installed, they lie inside `medvlm`."""
    if "app" in sys.modules:
        return
    spec = importlib.util.spec_from_file_location(
        "app", HERE / "__init__.py", submodule_search_locations=[str(HERE)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["app"] = module
    spec.loader.exec_module(module)


def log_in(oidc: Oidc) -> dict[str, Any]:
    """Streamlit's secrets: `st.login()`, and `st.login("sign")`, which asks anew who it is."""
    client = {
        "client_id": oidc.client_id,
        "client_secret": oidc.secret("client_secret") or "",
        "server_metadata_url": oidc.server_metadata_url,
    }
    anew = {"client_kwargs": {"prompt": "login"}, "authorize_params": {"max_age": "0"}}
    return {
        "auth": {
            "redirect_uri": oidc.redirect_uri,
            # Made anew with every start where none is given: everybody then logs in again.
            "cookie_secret": oidc.secret("cookie_secret") or secrets.token_hex(32),
            **client,
            "sign": {**client, **anew},
        }
    }


def allowed_hosts(address: str | None, hosts: tuple[str, ...]) -> list[str]:
    """Names by which a browser may call the page.

    On the machine's own address only its own names: else a page from elsewhere could have its name
    point here, and read along.
    """
    if address in (*LOOPBACK, "::1"):
        return [*LOOPBACK, *hosts]
    return [*LOOPBACK, address or "*", *hosts] if hosts else ["*"]


_name_the_package()
be_discreet()
_config = desk_config()


@cache
def _store() -> Store:
    return open_store(_config.database_url, _config.files)


@asynccontextmanager
async def _lifespan(_: st.App) -> AsyncIterator[dict[str, Any]]:
    store = _store()
    service = Service(store, _config)
    service.start()
    try:
        yield {}
    finally:
        service.stop()
        store.close()


app = st.App(
    HERE / "main.py",
    secrets=log_in(_config.oidc) if _config.oidc else None,
    lifespan=_lifespan,
    routes=pixel_routes(_store, TOKENS),
    middleware=[
        Middleware(
            TrustedHostMiddleware,
            allowed_hosts=allowed_hosts(st.get_option("server.address"), _config.hosts),
            www_redirect=False,
        ),
        Middleware(Guard, policy=content_security_policy()),
    ],
)
