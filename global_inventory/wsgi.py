"""A global inventory's WSGI application."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("INVENTORY_ROLE", "global")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "global_inventory.settings")

application = get_wsgi_application()
