"""A global inventory's WSGI application."""

import os

from datamodel.application import Application

os.environ.setdefault("INVENTORY_ROLE", "global")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "global_inventory.settings")

application = Application()
