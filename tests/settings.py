"""Both roles in one database, for unit tests; scenario tests run the real settings in real processes."""

import os

os.environ.setdefault("INVENTORY_ROLE", "site")
os.environ.setdefault("INVENTORY_SECRET_KEY", "for-tests-only-" + "x" * 40)

from datamodel.base_settings import *  # noqa: E402, F403

INSTALLED_APPS = [*BASE_APPS]  # noqa: F405
ROOT_URLCONF = "tests.urls"
