#!/usr/bin/env python
"""Runs a command of the role that INVENTORY_ROLE names; `demo` and `embedded` need neither a role nor settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from django.core.management import execute_from_command_line, load_command_class

SETTINGS = {"site": "site_service.settings", "global": "global_inventory.settings"}
WITHOUT_ROLE = {"demo": "harvest", "embedded": "datamodel"}
# Of a role, but it only becomes another process, which loads Django itself.
WITHOUT_DJANGO = {"serve": "datamodel"}
USAGE = """\
manage.py demo                   three inventories on this machine, from nothing
manage.py embedded start|stop|status|dump|restore
                                 a private PostgreSQL and Redis
manage.py help demo|embedded     their options

Every other command belongs to a role: set INVENTORY_ROLE to "site" or "global".
"""


def main(argv: Sequence[str], environment: Mapping[str, str]) -> None:
    """Run the command. Raises SystemExit with a message if the role is missing or unknown."""
    command = argv[1] if len(argv) > 1 else "help"
    asked = [command, *argv[2:]] if command != "help" else [*argv[2:3], "--help"]
    if asked[0] in WITHOUT_ROLE:
        load_command_class(WITHOUT_ROLE[asked[0]], asked[0]).run_from_argv([argv[0], *asked])
        return
    role = environment.get("INVENTORY_ROLE", "")
    if not role and command in {"help", "--help", "-h"}:
        sys.stdout.write(USAGE)
        return
    if role not in SETTINGS:
        raise SystemExit(f'manage.py {command}: set INVENTORY_ROLE to "site" or "global" (it is "{role}").')
    os.environ["DJANGO_SETTINGS_MODULE"] = SETTINGS[role]
    if command in WITHOUT_DJANGO:
        load_command_class(WITHOUT_DJANGO[command], command).run_from_argv(list(argv))
        return
    # With it comes half of Django.
    from datamodel.audit import acting  # noqa: PLC0415

    acting.run_command(command)
    execute_from_command_line(list(argv))


if __name__ == "__main__":
    main(sys.argv, os.environ)
