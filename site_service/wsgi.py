"""A site's WSGI application."""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("INVENTORY_ROLE", "site")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "site_service.settings")

application = get_wsgi_application()
