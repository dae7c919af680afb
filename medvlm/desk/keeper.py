"""The desk's keeper: a process that watches folders and prepares pixels beside the page's server.

Run as `python -m medvlm.desk.keeper` by the server. It needs no model.
"""

from __future__ import annotations

import logging
import sys

from medvlm.config.desk import DeskConfig, desk_config
from medvlm.desk.alone import BUSY, alone
from medvlm.desk.discreet import be_discreet, told
from medvlm.desk.intake import clean
from medvlm.desk.parent import Ending, child_ending
from medvlm.desk.prepare import prepare_wanted
from medvlm.desk.watch import Watcher
from medvlm.errors import StoreError
from medvlm.review.store import Store, open_store

POLL_S = 1.0
_log = logging.getLogger(__name__)


def keep(store: Store, config: DeskConfig, ending: Ending, poll_s: float = POLL_S) -> None:
    """Cleans up once, then watches and prepares until told to end."""
    clean(store)
    watchers = [Watcher(store, one.folder, one.stable_seconds) for one in config.watch]
    while not ending.told:
        try:
            prepare_wanted(store, lambda: ending.told)
            for watcher in watchers:
                watcher.poll()
        except StoreError as error:
            _log.warning("the desk cannot be used: %s", error.message)
            ending.wait(5)
        except OSError as error:
            _log.warning("the desk's files: %s", told(error))
            ending.wait(5)
        ending.wait(poll_s)


def main() -> None:
    """The process. Its exit code is BUSY where another keeper serves the desk already."""
    logging.basicConfig(format="%(asctime)s %(name)s: %(message)s", level=logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    be_discreet()
    ending = child_ending()
    config = desk_config()
    with open_store(config.database_url, config.files) as store, alone(store, "keeper") as only:
        if not only:
            sys.exit(BUSY)
        keep(store, config, ending)


if __name__ == "__main__":
    main()
