"""A worker, as the parent starts it: its orders come on standard input."""

from __future__ import annotations

import asyncio
import logging
import os
import sys

from service.config import ConfigInvalid
from service.observability.log_queue import alone, writer_to
from service.observability.logs import flush, log_uncaught, set_up, standard_error
from service.process.file_limit import raise_file_limit
from service.process.memory import share_arenas
from service.workers.process import Orders

log = logging.getLogger(__name__)


def main() -> int:
    orders = Orders.of_json(sys.stdin.read())
    config = orders.config
    share_arenas()
    write = alone(writer_to(standard_error()), orders.log_lock)
    form = (config.log_level, config.log_format, config.log_texts, config.log_queue_bytes)
    set_up(*form, write=write, worker=orders.number)
    log_uncaught()
    raise_file_limit()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    from service.app import NothingToServe, loop_factory
    from service.front_end import AddressInUse
    from service.runtime.devices import DeviceUnavailable
    from service.runtime.repository import NoModels
    from service.workers.worker import serve

    try:
        with asyncio.Runner(loop_factory=loop_factory(config)) as runner:
            return runner.run(serve(orders))
    except ConfigInvalid as error:
        log.error("configuration: %s", error)
        return 2
    except (NoModels, NothingToServe, DeviceUnavailable, AddressInUse) as error:
        log.error("cannot start: %s", error)
        return 1
    finally:
        flush()


if __name__ == "__main__":
    sys.exit(main())
