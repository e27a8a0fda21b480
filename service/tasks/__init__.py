"""The tasks that are served: one module each, registered in ``registry.py``.

To add a task, write a module that makes a ``Task`` and add it to the table there; or, from another
package, call ``register`` with it when it is imported, and name the module in ``task_modules``.
"""

from service.tasks.registry import register
from service.tasks.task import Task

__all__ = ["Task", "register"]
