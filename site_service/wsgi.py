"""A site's WSGI application."""

import os

from datamodel.application import Application

os.environ.setdefault("INVENTORY_ROLE", "site")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_service.settings")

application = Application()
