"""Both roles in one database, for unit tests; scenario tests run the real settings in real processes."""

import os

from tests.servers import test_server_location

os.environ.update(test_server_location().environment)
os.environ.setdefault("INVENTORY_ROLE", "site")
os.environ.setdefault("INVENTORY_SECRET_KEY", "for-tests-only-" + "x" * 40)
# Test servers are made to be quick.
os.environ["INVENTORY_ALLOW_UNSAFE_DATABASE"] = "true"

from global_inventory.settings import *  # noqa: F403
from site_service.settings import *  # noqa: F403
from site_service.settings import BASE_APPS, DATABASES

# Each role's tests say who else is concerned.
INVENTORY_SNAPSHOT_AWAITS = ""

INSTALLED_APPS = [
    "site_service",
    *BASE_APPS,
    "site_service.scrub",
    "site_service.retention",
    "site_service.files",
    "site_service.policy",
    "site_service.file_sync",
    "site_service.file_validate",
    "global_inventory",
    "global_inventory.sites",
    "global_inventory.releases",
]
# Users of the admin may sign in at a provider, whom the tests of that name.
INVENTORY_LOGIN_ISSUER = "https://login.invalid"
INVENTORY_LOGIN_CLIENT_ID = "inventory"
INVENTORY_LOGIN_CLIENT_SECRET = "client-secret"
INVENTORY_LOGIN_GROUPS = ["operators"]
ROOT_URLCONF = "site_service.urls"
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
# Each test client makes the middleware anew: it shall not look through all static files each time.
WHITENOISE_AUTOREFRESH = True
# A test's own clients open few connections; the pool must not outlive the test database.
DATABASES["default"]["OPTIONS"].pop("pool")
DATABASES["default"]["CONN_MAX_AGE"] = 0
# Whoever listens, listens to the test database.
INVENTORY_DIRECT_DATABASE_URL = ""
